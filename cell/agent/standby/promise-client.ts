/**
 * Asks annexes for promises, one small call each. Whatever is not certainly an answer of the annex that
 * is meant counts as silence.
 */
import { Agent, request } from "undici";
import {
  type Partner,
  type PromiseRequest,
  promiseAnswerSchema,
} from "../../../contract/standby-api.ts";
import type { Clock } from "../../../runtime/clock.ts";
import type { PartnerAnswer } from "./failsafe-state.ts";
import { promisePath } from "./promise-door.ts";

export type PromiseClient = {
  /** Rejects never. */
  readonly ask: (
    partner: Partner,
    body: Omit<PromiseRequest, "annex">,
    timeoutMs: number,
  ) => Promise<PartnerAnswer>;
  readonly close: () => Promise<void>;
};

const answerBytesMax = 4096;

export function createPromiseClient(
  clock: Clock,
  /** Shown to annexes that ask for a certificate. */
  tls: () => { readonly cert?: string; readonly key?: string },
): PromiseClient {
  let agent: Agent | undefined;
  return {
    ask: async (partner, body, timeoutMs) => {
      agent ??= new Agent({ connections: 2, allowH2: false, connect: { ...tls(), timeout: 1000 } });
      const sentMonoMs = clock.monotonicMs();
      try {
        // Redirects are not followed: another machine's promise is worth nothing.
        const response = await request(new URL(promisePath, partner.endpoint), {
          method: "POST",
          dispatcher: agent,
          headersTimeout: timeoutMs,
          bodyTimeout: timeoutMs,
          signal: AbortSignal.timeout(timeoutMs),
          headers: {
            "content-type": "application/json",
            authorization: `Bearer ${partner.token}`,
          },
          body: JSON.stringify({ ...body, annex: partner.annex }),
        });
        const text = await readSmall(response.body);
        if (response.statusCode !== 200) return { kind: "silent" };
        return answerOf(JSON.parse(text), sentMonoMs);
      } catch {
        return { kind: "silent" };
      }
    },
    close: async () => {
      await agent?.destroy();
    },
  };
}

function answerOf(raw: unknown, sentMonoMs: number): PartnerAnswer {
  const parsed = promiseAnswerSchema.safeParse(raw);
  if (!parsed.success) return { kind: "silent" };
  if ("promisedMs" in parsed.data) return { kind: "promised", sentMonoMs, ...parsed.data };
  const { refused, text } = parsed.data;
  switch (refused) {
    case "TAKEOVER":
      return { kind: "takeover" };
    case "TIME_TRAVEL":
    case "OTHER_DATABASE":
      return { kind: "foreign", text: `${refused}: ${text}` };
    case "TOKEN":
    case "NOT_MY_ORIGIN":
      return { kind: "silent" };
  }
}

async function readSmall(body: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    bytes += chunk.length;
    if (bytes > answerBytesMax) throw new Error("the answer is too large");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}
