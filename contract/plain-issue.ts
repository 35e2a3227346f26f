/**
 * What a schema found wrong, in words for people who wrote a flag or a file and know no schema: where,
 * what it must be, and what was there.
 */
import type { z } from "zod";

export type PlainIssue = { readonly path: readonly PropertyKey[]; readonly text: string };

/** `input` is what was checked: the issue itself does not carry it. */
export function plainIssue(issue: z.core.$ZodIssue, input: unknown): PlainIssue {
  const { path } = issue;
  const there = valueAt(input, path);
  switch (issue.code) {
    case "unrecognized_keys":
      return { path, text: `there is no ${issue.keys.map((key) => `"${key}"`).join(", ")} here` };
    case "invalid_type":
      if (there === undefined) return { path, text: "is missing" };
      return { path, text: `must be ${kinds[issue.expected] ?? issue.expected}${notThis(there)}` };
    case "too_small":
      return issue.origin === "number" || issue.origin === "int"
        ? { path, text: `must be at least ${issue.minimum}${notThis(there)}` }
        : { path, text: issue.message };
    case "too_big":
      return issue.origin === "number" || issue.origin === "int"
        ? { path, text: `must be at most ${issue.maximum}${notThis(there)}` }
        : { path, text: issue.message };
    case "invalid_value":
      return { path, text: `must be ${issue.values.map(String).join(" or ")}${notThis(there)}` };
    case "invalid_union":
      return unionIssue(issue, path, there);
    default:
      return { path, text: issue.message };
  }
}

/** All that it may be, when that can be said of the value itself; else what the nearest branch says. */
function unionIssue(
  { errors, message }: z.core.$ZodIssueInvalidUnion,
  path: readonly PropertyKey[],
  there: unknown,
): PlainIssue {
  const firsts = errors.flatMap(([first]) => (first === undefined ? [] : [first]));
  if (firsts.length > 0 && firsts.every((one) => one.path.length === 0)) {
    const texts = firsts.map((one) => plainIssue(one, there).text.replace(notThis(there), ""));
    const rules = [...new Set(texts)].map((text) => text.replace(/^must be /, ""));
    return { path, text: `must be ${rules.join(", or ")}${notThis(there)}` };
  }
  return { path, text: message };
}

const kinds: Readonly<Record<string, string>> = {
  number: "a number",
  int: "a whole number",
  string: "a text",
  boolean: "true or false",
  object: "an object",
  record: "an object",
  array: "a list",
};

const shownCharsMax = 60;

/** Of what was written; a list or an object would say nothing in one line. */
const notThis = (value: unknown): string =>
  typeof value === "string" || typeof value === "number" || typeof value === "boolean"
    ? `, and not ${JSON.stringify(value).slice(0, shownCharsMax)}`
    : "";

function valueAt(input: unknown, path: readonly PropertyKey[]): unknown {
  let value = input;
  for (const key of path) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, key)) return undefined;
    value = Reflect.get(value, key);
  }
  return value;
}

/** `cells.a.endpoints: must be …`; what is wrong with the whole has no place before it. */
export const placedIssue = (issue: z.core.$ZodIssue, input: unknown): string => {
  const { path, text } = plainIssue(issue, input);
  return path.length === 0 ? text : `${path.join(".")}: ${text}`;
};
