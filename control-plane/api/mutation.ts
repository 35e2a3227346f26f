/**
 * A mutation: plan, audit entry, effect and the answer for its Idempotency-Key, in one transaction.
 * A dry run stops after the plan. A refusal leaves nothing behind but its audit entry.
 */
import { createHash } from "node:crypto";
import { z } from "zod";
import { idempotencyHeader, intentSchema } from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import { type Actor, recordAudit } from "../store/audit.ts";
import { canonicalJson } from "../store/audit-chain.ts";
import type { Tx } from "../store/database.ts";
import {
  claimIdempotencyKey,
  type IdempotentRequest,
  type StoredAnswer,
  storeAnswer,
} from "../store/idempotency.ts";
import type { Caller } from "./auth.ts";
import type { ApiContext } from "./context.ts";
import { type Answer, type Asked, type Endpoint, type EndpointSpec, endpoint } from "./endpoint.ts";

type Shape = z.ZodRawShape;

export type Work = {
  readonly tx: Tx;
  readonly nowMs: number;
  readonly actor: Actor;
  readonly reason: string;
  /** True: return the plan and change nothing. */
  readonly dryRun: boolean;
  /** Writes the audit entry; call it before the first change. */
  readonly record: (before: unknown, after: unknown) => Promise<void>;
};

export type MutationSpec<P extends Shape, B extends z.ZodType, L = undefined> = Omit<
  EndpointSpec<P, Record<never, never>, B>,
  "serve" | "audit" | "query" | "headers" | "streams" | "body"
> & {
  /** `cell.cordon`: what the audit log calls it. */
  readonly action: string;
  readonly object: (asked: Asked<P, Record<never, never>, B>) => string;
  readonly body: B;
  /**
   * Takes out of the body what must be recorded nowhere, before it is audited, hashed for its
   * Idempotency-Key or looked at otherwise.
   */
  readonly conceal?: (body: z.output<B>) => Promise<z.output<B>>;
  /** What the entry of a refusal shows of the body, where that is not all of it. */
  readonly recorded?: (body: z.output<B>) => unknown;
  /** Asked once before the transaction, for what must not be waited for inside it; changes nothing. */
  readonly look?: (asked: Asked<P, Record<never, never>, B>) => Promise<L>;
  /** Runs again when the transaction lost a race: does nothing but talk to the database. */
  readonly apply: (
    work: Work,
    asked: Asked<P, Record<never, never>, B>,
    looked: L | undefined,
  ) => Promise<Answer>;
  /** The answer to keep for replay, where the real one holds a secret. */
  readonly keep?: (answer: Answer) => StoredAnswer;
  /** Answers a replay from what was kept; throws where it cannot be answered again. */
  readonly replay?: (body: unknown) => unknown;
};

const keyHeaderSchema = z.object({
  [idempotencyHeader]: z
    .string()
    .regex(/^[\x21-\x7e]{1,200}$/, "must be 1 to 200 visible ASCII characters")
    .optional(),
});

export const actorOf = (caller: Caller): Actor => ({
  name: `${caller.name} (${caller.tokenId})`,
  role: caller.role,
});

export function mutation<P extends Shape, B extends z.ZodType, L = undefined>(
  context: ApiContext,
  spec: MutationSpec<P, B, L>,
): Endpoint {
  const declared = endpoint<P, Record<never, never>, B>({
    ...spec,
    headers: keyHeaderSchema,
    audit: { action: spec.action, object: (incoming) => Object.values(incoming.params).join("/") },
    serve: async (asked) => {
      const body = (await spec.conceal?.(asked.body)) ?? asked.body;
      return runMutation<P, B, L>(context, spec, { ...asked, body });
    },
  });
  return declared;
}

async function runMutation<P extends Shape, B extends z.ZodType, L>(
  context: ApiContext,
  spec: MutationSpec<P, B, L>,
  asked: Asked<P, Record<never, never>, B>,
): Promise<Answer> {
  const intent = intentOf(asked.body);
  const object = spec.object(asked);
  const idempotent = idempotentRequest(asked);
  const actor = actorOf(asked.caller);
  try {
    const looked = await spec.look?.(asked);
    return await context.database.transaction(async (tx) => {
      const replay =
        idempotent === undefined || intent.dryRun
          ? undefined
          : await claimIdempotencyKey(tx, idempotent);
      if (replay !== undefined) {
        return replayed({ ...replay, body: spec.replay?.(replay.body) ?? replay.body });
      }
      const nowMs = context.clock.nowMs();
      const answer = await spec.apply(
        {
          tx,
          nowMs,
          actor,
          reason: intent.reason,
          dryRun: intent.dryRun,
          record: async (before, after) => {
            const { action } = spec;
            const outcome = "accepted";
            await recordAudit(
              tx,
              { actor, action, object, reason: intent.reason, outcome, before, after },
              nowMs,
            );
          },
        },
        asked,
        looked,
      );
      if (idempotent !== undefined && !intent.dryRun) {
        await storeAnswer(tx, idempotent, spec.keep?.(answer) ?? answer);
      }
      return answer;
    });
  } catch (error) {
    if (error instanceof CellError && !intent.dryRun) {
      await auditRefusal(context, { action: spec.action, object, caller: asked.caller }, error, {
        reason: intent.reason,
        after: spec.recorded === undefined ? asked.body : spec.recorded(asked.body),
      });
    }
    throw error;
  }
}

/** Refusals that say nothing about the fleet: the request itself was no good. */
const unaudited: ReadonlySet<string> = new Set([
  "VALIDATION_FAILED",
  "BODY_TOO_LARGE",
  "IDEMPOTENCY_IN_FLIGHT",
  "IDEMPOTENCY_MISMATCH",
]);

/** What an authenticated caller was refused is an entry too (issue: hostile input, drills of permission). */
export async function auditRefusal(
  context: ApiContext,
  what: { readonly action: string; readonly object: string; readonly caller: Caller },
  error: CellError,
  asked: { readonly reason: string; readonly after: unknown },
): Promise<void> {
  if (unaudited.has(error.code)) return;
  await context.database.transaction((tx) =>
    recordAudit(
      tx,
      {
        actor: actorOf(what.caller),
        action: what.action,
        object: what.object,
        reason: asked.reason,
        outcome: error.code,
        after: asked.after,
      },
      context.clock.nowMs(),
    ),
  );
}

function intentOf(body: unknown): { readonly reason: string; readonly dryRun: boolean } {
  const loose = z.object(intentSchema.shape).safeParse(body);
  return { reason: loose.data?.reason ?? "", dryRun: loose.data?.dryRun ?? false };
}

function idempotentRequest(asked: {
  readonly caller: Caller;
  readonly request: Request;
  readonly body?: unknown;
}): IdempotentRequest | undefined {
  const raw = asked.request.headers.get(idempotencyHeader) ?? undefined;
  const parsed = keyHeaderSchema.safeParse({ [idempotencyHeader]: raw });
  if (!parsed.success) {
    throw new CellError(
      "VALIDATION_FAILED",
      `${idempotencyHeader}: must be 1 to 200 visible ASCII characters`,
    );
  }
  if (raw === undefined) return undefined;
  const { pathname } = new URL(asked.request.url);
  const requestHash = createHash("sha256")
    .update(`${asked.request.method} ${pathname}\n${canonicalJson(asked.body)}`, "utf8")
    .digest("hex");
  return { tokenId: asked.caller.tokenId, key: raw, requestHash };
}

const answerStatuses = [200, 201, 202] as const;

function replayed(stored: StoredAnswer): Answer {
  return {
    status: answerStatuses.find((status) => status === stored.status) ?? 200,
    body: stored.body,
    headers: { "idempotency-replayed": "true" },
  };
}
