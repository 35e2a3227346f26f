/**
 * Text that may stand on a terminal. What a fleet tells us was written by strangers: a tenant's
 * label may hold an escape sequence that rewrites the screen, sets the clipboard or hides a line.
 *
 * Always true here: no control character, no bidirectional override and no invisible character of
 * a value reaches a terminal as itself.
 */

/*
 * C0, DEL and C1 (0x9b alone starts a sequence on some terminals), soft hyphen, zero-width and
 * direction marks, line and paragraph separators, overrides and isolates, the byte order mark.
 */
const dangerous =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: finding them is the point.
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;

const hex = (char: string, digits: number): string =>
  char.charCodeAt(0).toString(16).padStart(digits, "0");

/** One line of text: `\x1b` instead of the escape character, and so on. */
export const printable = (text: string): string =>
  loneSurrogatesReplaced(text).replace(dangerous, (char) =>
    char.charCodeAt(0) < 0x100 ? `\\x${hex(char, 2)}` : `\\u${hex(char, 4)}`,
  );

/** The same for text that is JSON, or double-quoted YAML, already: the value it encodes stays what it is. */
export const printableJson = (json: string): string =>
  json.replace(dangerous, (char) => (char === "\n" ? char : `\\u${hex(char, 4)}`));

export const isPrintable = (text: string): boolean => text.search(dangerous) === -1;

const loneSurrogatesReplaced = (text: string): string => text.toWellFormed();
