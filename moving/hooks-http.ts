/** One POST to a hook. An answer is read no further than it is shown; its connection is closed after it. */
import { Agent, request } from "undici";
import type { HookCall, HookFailure } from "./hooks.ts";
import { excerptBytesMax, excerptOf } from "./hooks-excerpt.ts";

export async function postHook(
  url: string,
  { body, idempotencyKey, timeoutMs, signal }: HookCall,
): Promise<HookFailure | undefined> {
  const deadline = AbortSignal.timeout(timeoutMs);
  const agent = new Agent({ connections: 1, connectTimeout: timeoutMs, allowH2: false });
  try {
    const response = await request(url, {
      method: "POST",
      dispatcher: agent,
      headersTimeout: timeoutMs,
      bodyTimeout: timeoutMs,
      signal: AbortSignal.any([signal, deadline]),
      headers: {
        "content-type": "application/json",
        "idempotency-key": idempotencyKey,
        accept: "application/json, text/plain",
      },
      body,
    });
    const { statusCode } = response;
    if (statusCode >= 200 && statusCode < 300) return undefined;
    const text = `it answered ${statusCode}: ${excerptOf(await readBeginning(response.body))}`;
    return { text, again: statusCode >= 500 };
  } catch (error) {
    if (deadline.aborted) return { text: `no answer within ${timeoutMs} ms`, again: false };
    const said = error instanceof Error ? error.message : String(error);
    return { text: `it could not be asked: ${excerptOf(Buffer.from(said))}`, again: true };
  } finally {
    // Also ends what it still wants to say.
    await agent.destroy();
  }
}

async function readBeginning(body: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    chunks.push(chunk);
    bytes += chunk.length;
    if (bytes >= excerptBytesMax) break;
  }
  return Buffer.concat(chunks).subarray(0, excerptBytesMax);
}
