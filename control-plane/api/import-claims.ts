/** Many names at once: all of them or none, and the same call again changes nothing. */
import type { z } from "zod";
import { hashAlias, normaliseAlias } from "../../contract/alias.ts";
import { claimImportResultSchema, importClaimsSchema } from "../../contract/claims-api.ts";
import { acceptedSchema } from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import { onePlan } from "../core/ops/machine.ts";
import {
  type BadName,
  badNames,
  commitNames,
  countFresh,
  stageNames,
} from "../store/claim-import.ts";
import { readSalt, requireNamespace } from "../store/claim-namespaces.ts";
import { changeRouting, lockNormalFleet } from "../store/routing-change.ts";
import { accept, freshOpId } from "./accept.ts";
import type { ApiContext } from "./context.ts";
import type { Answer, Endpoint } from "./endpoint.ts";
import { mutation, type Work } from "./mutation.ts";

/** Ten thousand of the longest names. */
const bodyBytesMax = 16 * 1024 * 1024;
const badShownMax = 100;

type Body = z.output<typeof importClaimsSchema>;

export const claimImportEndpoint = (context: ApiContext): Endpoint =>
  mutation(context, {
    method: "post",
    path: "/v1/claims/import",
    role: "operator",
    tag: "claims",
    summary: "Commit many names, all or none.",
    body: importClaimsSchema,
    bodyBytesMax,
    answers: { 200: claimImportResultSchema, 202: claimImportResultSchema },
    action: "claim.import",
    conceal: (body) => hideAll(context, body),
    object: ({ body }) => `${body.names.length} names`,
    recorded: ({ names, ...body }) => ({ ...body, names: names.length }),
    apply: (work, { body }) => importNames(context, work, body),
  });

/** From here on each `value` is the hash. Throws IMPORT_INVALID. */
async function hideAll(context: ApiContext, body: Body): Promise<Body> {
  const { read } = context.database;
  const salt = await readSalt(read);
  const folds = new Map<string, boolean>();
  for (const namespace of new Set(body.names.map((one) => one.namespace))) {
    folds.set(namespace, (await requireNamespace(read, namespace)).fold);
  }
  const bad: BadName[] = [];
  const names = body.names.map((one, index) => {
    const name = normaliseAlias(one.value, folds.get(one.namespace) === true);
    if (name === undefined) bad.push({ line: index + 1, error: "value: must be a visible name" });
    return { ...one, value: hashAlias(salt, one.namespace, name ?? "") };
  });
  if (bad.length > 0) throw invalid(bad, bad.length);
  return { ...body, names };
}

const invalid = (bad: readonly BadName[], total: number): CellError =>
  new CellError(
    "IMPORT_INVALID",
    `line ${bad[0]?.line}: ${bad[0]?.error}: ${total} bad lines; nothing was applied.`,
    {
      details: { badLines: bad.slice(0, badShownMax), skipped: total },
      nextSteps: ["Correct the lines and import again; what is there already is no mistake."],
    },
  );

async function importNames(context: ApiContext, work: Work, body: Body): Promise<Answer> {
  const { tx } = work;
  await lockNormalFleet(tx);
  const names = body.names.map(({ value, ...one }, index) => ({
    ...one,
    hash: value,
    line: index + 1,
  }));
  await stageNames(tx, names);
  const bad = await badNames(tx, badShownMax);
  if (bad.total > 0) throw invalid(bad.shown, bad.total);
  const { fresh, known, routed } = await countFresh(tx);
  const counts = { committed: fresh, unchanged: known };
  if (work.dryRun || fresh === 0) {
    return { status: 200, body: { op: null, ...counts, next_steps: [] } };
  }
  const perNamespace = Object.fromEntries(
    [...Map.groupBy(names, ({ namespace }) => namespace)].map(([name, some]) => [
      name,
      some.length,
    ]),
  );
  await work.record(null, { ...counts, perNamespace });
  const revision = routed > 0 ? await changeRouting(tx, { config: false }) : undefined;
  await commitNames(tx, revision ?? null);
  const object = `${fresh} names`;
  const answer = await accept(work, {
    id: freshOpId(context, work),
    kind: "claim.change",
    object,
    plan: onePlan("claim.change", [{ action: "commit", object, text: "commit them" }]),
    input: { ...counts, perNamespace },
    headline: revision === undefined ? `${object} are committed` : "recorded; telling the routers",
    ...(revision === undefined ? { done: true } : { revision }),
  });
  const { op } = acceptedSchema.parse(answer.body);
  return { status: 202, body: { op, ...counts, next_steps: ["cellctl claim ls"] } };
}
