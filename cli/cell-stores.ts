/** Databases of a cell as options say them: `--database-url-ref`, `--store`, `--mover`, `--key-column`. */
import { defaultService } from "../contract/service-route.ts";
import { parseSecretRef, secretRefRule } from "../runtime/secret-ref.ts";
import { usage } from "./failures.ts";
import { type Options, text, texts } from "./grammar.ts";

type StoreSaid = { database?: string; mover?: string; keyColumn?: string };

/** By name; the cell's first database is its store `default`. */
export function storesOf(options: Options): Readonly<Record<string, StoreSaid>> {
  const stores: Record<string, StoreSaid> = {};
  const say = (name: string, said: StoreSaid) => {
    stores[name] = { ...stores[name], ...said };
  };
  const main = text(options, "databaseUrlRef");
  if (main !== undefined) {
    say(defaultService, { database: reference("--database-url-ref", main) });
  }
  for (const raw of texts(options, "store")) {
    const at = raw.indexOf("=");
    if (at < 1) throw usage(`--store "${raw.slice(0, 20)}": must be NAME=REF`);
    say(raw.slice(0, at), { database: reference("--store", raw.slice(at + 1)) });
  }
  for (const raw of texts(options, "mover")) {
    // A reference has its colon before any equals sign, a name has none.
    const [, name = defaultService, ref = ""] = /^(?:([a-z0-9-]+)=)?(.*)$/s.exec(raw) ?? [];
    say(name, { mover: reference("--mover", ref) });
  }
  const keyColumn = text(options, "keyColumn");
  if (keyColumn !== undefined) for (const name of Object.keys(stores)) say(name, { keyColumn });
  return stores;
}

function reference(option: string, ref: string): string {
  if (parseSecretRef(ref) !== undefined) return ref;
  const example = option === "--database-url-ref" ? "" : "NAME=";
  throw usage(
    `${option}: must be ${secretRefRule}, never the address itself: the control plane keeps it`,
    `export SHOP_DATABASE=postgres://… and pass ${option} ${example}env:SHOP_DATABASE`,
  );
}
