/** Is somebody answering, and with which status? Readiness is asked, never guessed from a log. */
import { request } from "undici";

const probeMs = 2000;

/** The status of one GET; undefined when nobody answers. */
export async function statusOf(
  url: string,
  headers: Readonly<Record<string, string>> = {},
): Promise<number | undefined> {
  try {
    const { statusCode, body } = await request(url, {
      headers,
      headersTimeout: probeMs,
      bodyTimeout: probeMs,
      signal: AbortSignal.timeout(probeMs),
    });
    await body.dump();
    return statusCode;
  } catch {
    return undefined; // Not listening yet, or not any more.
  }
}

export const answersOk = async (url: string): Promise<boolean> => (await statusOf(url)) === 200;
