/** Values as YAML 1.2 that carries no control character to a terminal and reads back the same. */
import { Document, Scalar, visit } from "yaml";
import { isPrintable, printableJson } from "./printable.ts";

export function toYaml(value: unknown): string {
  const document = new Document(value, { aliasDuplicateObjects: false });
  visit(document, {
    Scalar: (_key, node) => {
      // Only a double-quoted scalar can hold an escape; newlines would otherwise become a block.
      if (typeof node.value === "string" && !isPrintable(node.value)) {
        node.type = Scalar.QUOTE_DOUBLE;
      }
    },
  });
  return printableJson(document.toString({ lineWidth: 0, doubleQuotedAsJSON: true }));
}
