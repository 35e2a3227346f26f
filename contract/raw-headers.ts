/**
 * Header lists as they come over the wire: flat arrays `[name, value, name, value, …]`, so that case,
 * order and duplicates survive. Node's `req.headers` joins or drops duplicates and is not used.
 */
export type RawHeaders = readonly string[];

/** All values of a header, in order. `name` is lower case. */
export function headerValues(raw: RawHeaders, name: string): string[] {
  const values: string[] = [];
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const candidate = raw[at] ?? "";
    if (candidate.length === name.length && candidate.toLowerCase() === name) {
      values.push(raw[at + 1] ?? "");
    }
  }
  return values;
}

/** The elements of a comma-separated list header, trimmed and in lower case, empty ones left out. */
export function listElements(values: readonly string[]): string[] {
  // Most messages have none of the headers that are asked for.
  if (values.length === 0) return [];
  return values
    .flatMap((value) => value.split(","))
    .map((element) => element.trim().toLowerCase())
    .filter((element) => element !== "");
}

/** So many names are remembered per question, and none that is longer: clients choose them. */
const namesMax = 1024;
const nameCharsMax = 64;

/**
 * What `judge` says of a header's name in lower case, remembered: the same few dozen names come with
 * every message. `judge` is pure.
 */
export function byHeaderName<Verdict extends string | boolean>(
  judge: (name: string) => Verdict,
): (name: string) => Verdict {
  const known = new Map<string, Verdict>();
  return (name) => {
    const before = known.get(name);
    if (before !== undefined) return before;
    const verdict = judge(name.toLowerCase());
    if (name.length > nameCharsMax) return verdict;
    if (known.size >= namesMax) known.clear();
    known.set(name, verdict);
    return verdict;
  };
}

/**
 * A header's name as the strangest server may read it: CGI, WSGI, PHP and Java frameworks take `_` and
 * `.` for a dash, and put `HTTP_` in front of what came over the wire.
 */
export const foldHeaderName = (name: string): string =>
  name
    .toLowerCase()
    .replace(/[^a-z0-9]/g, "-")
    .replace(/^(?:http-)+/, "");

/** The headers for which `keep` says yes; its argument is the name in lower case. */
export function filterHeaders(raw: RawHeaders, keep: (name: string) => boolean): string[] {
  const kept: string[] = [];
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const name = raw[at] ?? "";
    if (keep(name.toLowerCase())) kept.push(name, raw[at + 1] ?? "");
  }
  return kept;
}
