/**
 * Which licences may come in. What is shipped with Cellfleet asks for no more than its name to be
 * kept; of tools that are not shipped, file-wise copyleft is taken too.
 *
 * Pure: packages in, faults out. A licence that is not on the list is a fault, not a question.
 */
import type { LockedPackage } from "./packages.ts";

const shipped: readonly string[] = [
  "MIT",
  "ISC",
  "Apache-2.0",
  "BSD-2-Clause",
  "BSD-3-Clause",
  "0BSD",
];
const toolsToo: readonly string[] = ["MPL-2.0", "BlueOak-1.0.0", "CC0-1.0", "Python-2.0"];

export function licenceFaults(packages: readonly LockedPackage[]): string[] {
  if (packages.length === 0) return ["the lock file names no package: there is nothing to check"];
  return packages.flatMap(({ name, version, licence, dev }) => {
    const allowed = dev ? [...shipped, ...toolsToo] : shipped;
    const where = `${name}@${version} (${dev ? "tool" : "shipped"})`;
    if (licence === undefined || licence.trim() === "") return [`${where} names no licence`];
    return isAllowed(licence, allowed) ? [] : [`${where} is under ${licence}`];
  });
}

/**
 * SPDX expressions: of `OR` one branch must be allowed, of `AND` each; `AND` binds closer. Anything
 * else (`WITH`, `SEE LICENSE IN …`) is one name, and on no list.
 */
export function isAllowed(expression: string, allowed: readonly string[]): boolean {
  const text = withoutOuterParentheses(expression.trim());
  const either = splitOutside(text, " OR ");
  if (either.length > 1) return either.some((part) => isAllowed(part, allowed));
  const every = splitOutside(text, " AND ");
  if (every.length > 1) return every.every((part) => isAllowed(part, allowed));
  return allowed.includes(text);
}

function withoutOuterParentheses(text: string): string {
  if (!text.startsWith("(") || !text.endsWith(")")) return text;
  const inner = text.slice(1, -1);
  // `(A) AND (B)` begins and ends with parentheses that are no pair.
  return isBalanced(inner) ? withoutOuterParentheses(inner.trim()) : text;
}

function isBalanced(text: string): boolean {
  let depth = 0;
  for (const char of text) {
    depth += char === "(" ? 1 : char === ")" ? -1 : 0;
    if (depth < 0) return false;
  }
  return depth === 0;
}

function splitOutside(text: string, word: string): string[] {
  const parts: string[] = [];
  let from = 0;
  let depth = 0;
  for (let at = 0; at < text.length; at += 1) {
    depth += text[at] === "(" ? 1 : text[at] === ")" ? -1 : 0;
    if (depth !== 0 || !text.startsWith(word, at)) continue;
    parts.push(text.slice(from, at));
    from = at + word.length;
  }
  return [...parts, text.slice(from)];
}
