/** JSON that came from elsewhere: what is none is undefined, and the schema that reads it says so. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // The only error is a syntax error, and it is reported by the reader's schema.
  }
}
