/**
 * The beginning of what a stranger answered, as one line that may stand in a message: no control
 * character, no sign that turns the direction of text or cannot be seen. Pure.
 */
const charactersMax = 200;
/** What is worth reading of an answer, in bytes. */
export const excerptBytesMax = 4096;

export function excerptOf(answer: Buffer): string {
  const text = answer
    .toString("utf8")
    .toWellFormed()
    .replaceAll(/[\p{Cc}\p{Zl}\p{Zp}\s]+/gu, " ")
    .replaceAll(/[\p{Cf}\p{Co}\p{Cn}]/gu, "?")
    .trim();
  const characters = [...text];
  if (characters.length === 0) return "nothing was said";
  return characters.length <= charactersMax
    ? text
    : `${characters.slice(0, charactersMax).join("")}…`;
}
