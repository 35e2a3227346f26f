/** Tokens: made, listed without their secrets, revoked. For admins. */
import { z } from "zod";
import {
  acceptedSchema,
  createdTokenSchema,
  createTokenSchema,
  dryRunSchema,
  intentSchema,
  list,
  tokenSchema,
} from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import { parseCellId, parseRouterId } from "../../contract/ids.ts";
import { onePlan } from "../core/ops/machine.ts";
import { findToken, insertToken, listTokens, revokeToken, type TokenRow } from "../store/tokens.ts";
import { accept, dryRunAnswer, freshOpId } from "./accept.ts";
import { hashSecret, newSecret } from "./auth.ts";
import type { ApiContext } from "./context.ts";
import { type Answer, type Endpoint, endpoint } from "./endpoint.ts";
import { mutation, type Work } from "./mutation.ts";
import { decodeCursor, page, pageQuery } from "./paging.ts";

type Wanted = z.output<typeof createTokenSchema>;

export function tokenEndpoints(context: ApiContext): readonly Endpoint[] {
  return [
    endpoint({
      method: "get",
      path: "/v1/tokens",
      role: "admin",
      tag: "tokens",
      summary: "List tokens that are not revoked; never their secrets.",
      query: pageQuery,
      answers: { 200: list(tokenSchema) },
      serve: async ({ query }) => {
        const after = decodeCursor(query.cursor, "");
        const rows = await listTokens(context.database.read, after, query.limit + 1);
        const shown = page(rows, query.limit, ({ id }) => id);
        return { status: 200, body: { items: shown.items.map(toToken), next: shown.next } };
      },
    }),
    mutation(context, {
      method: "post",
      path: "/v1/tokens",
      role: "admin",
      tag: "tokens",
      summary: "Make a token. Its secret is in this answer and nowhere else.",
      body: createTokenSchema,
      answers: { 201: createdTokenSchema },
      action: "token.create",
      object: ({ body }) => body.name,
      apply: (work, { body }) => createToken(context, work, body),
      // A secret is never stored, also not for replay.
      keep: ({ body }) => ({
        status: 201,
        body: { ...createdTokenSchema.parse(body), secret: "" },
      }),
      replay: refuseSecretTwice,
    }),
    mutation(context, {
      method: "delete",
      path: "/v1/tokens/{id}",
      role: "admin",
      tag: "tokens",
      summary: "Make a token worthless, at once.",
      params: { id: z.string().min(1).max(64) },
      body: intentSchema,
      answers: { 200: dryRunSchema, 202: acceptedSchema },
      action: "token.revoke",
      object: ({ path }) => path.id,
      apply: (work, { path }) => revoke(context, work, path.id),
    }),
  ];
}

function refuseSecretTwice(body: unknown): never {
  const { token } = createdTokenSchema.parse(body);
  throw new CellError(
    "STATE_CONFLICT",
    `The token ${token.id} was made by this Idempotency-Key; its secret was shown once and is not kept.`,
    { nextSteps: [`cellctl token revoke ${token.id}`, `cellctl token create ${token.name}`] },
  );
}

async function createToken(context: ApiContext, work: Work, wanted: Wanted): Promise<Answer> {
  const subject = requireSubjectOf(wanted);
  const secret = newSecret(context.random);
  const id = `tok-${context.random.hex(6)}`;
  const { name, role, ttlSeconds } = wanted;
  const expiresAt = ttlSeconds === undefined ? null : new Date(work.nowMs + ttlSeconds * 1000);
  await work.record(null, { id, name, role, subject, expiresAt: expiresAt?.toISOString() ?? null });
  await insertToken(work.tx, { id, name, role, subject, hash: hashSecret(secret), expiresAt });
  const createdAt = new Date(work.nowMs);
  const token = toToken({ id, name, role, subject, expiresAt, createdAt });
  return { status: 201, body: { token, secret } };
}

/** A machine token speaks for one cell or router; a person's for nobody but the person. */
function requireSubjectOf({ role, subject }: Wanted): string | null {
  const machine = role === "agent" || role === "router";
  if (!machine && subject !== undefined) {
    throw new CellError(
      "VALIDATION_FAILED",
      `subject: is for the roles agent and router, not ${role}`,
    );
  }
  if (!machine) return null;
  const valid = role === "agent" ? parseCellId(subject ?? "") : parseRouterId(subject ?? "");
  if (valid === undefined) {
    throw new CellError(
      "VALIDATION_FAILED",
      `subject: the role ${role} needs the id it speaks for`,
    );
  }
  return valid;
}

async function revoke(context: ApiContext, work: Work, id: string): Promise<Answer> {
  const token = await findToken(work.tx, id);
  if (token === undefined || token.revokedAt !== null) {
    throw new CellError("TOKEN_UNKNOWN", `There is no token ${id}.`, {
      nextSteps: ["cellctl token ls"],
    });
  }
  const plan = onePlan("token.revoke", [
    { action: "revoke", object: id, text: `revoke the ${token.role} token ${token.name}` },
  ]);
  if (work.dryRun) return dryRunAnswer(plan);
  await work.record(toToken(token), null);
  await revokeToken(work.tx, id, new Date(work.nowMs));
  return accept(work, {
    id: freshOpId(context, work),
    kind: "token.revoke",
    object: id,
    plan,
    input: {},
    headline: `the ${token.role} token ${token.name} is revoked`,
    done: true,
  });
}

const toToken = (
  row: Pick<TokenRow, "id" | "name" | "role" | "subject" | "expiresAt" | "createdAt">,
) =>
  tokenSchema.parse({
    ...row,
    expiresAt: row.expiresAt?.toISOString() ?? null,
    createdAt: row.createdAt.toISOString(),
  });
