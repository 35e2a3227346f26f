/** Headers between the forms of undici and of node:http. */
import type { Dispatcher } from "undici";

/** Header bytes are latin1 on the wire and stay it on their way. */
export function latin1(raw: Dispatcher.DispatchController["rawHeaders"]): string[] {
  if (!Array.isArray(raw)) return [];
  return raw.map((part) => (typeof part === "string" ? part : part.toString("latin1")));
}

/** The form that both node:http and node:http2 take. */
export function lists(raw: readonly string[]): Record<string, string[]> {
  const object: Record<string, string[]> = {};
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const name = raw[at] ?? "";
    const values = Object.hasOwn(object, name) ? object[name] : undefined;
    if (values === undefined) object[name] = [raw[at + 1] ?? ""];
    else values.push(raw[at + 1] ?? "");
  }
  return object;
}
