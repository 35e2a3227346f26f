/**
 * `POST /v1/tenants/import`: a file of tenants, streamed, checked line by line, placed and recorded in
 * one transaction. A bad line stops all of it, unless the caller said to skip bad lines; an upload
 * that breaks off leaves nothing.
 */
import { createHash } from "node:crypto";
import { z } from "zod";
import { idempotencyHeader, importResultSchema, type Plan } from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import { newOpId } from "../../runtime/random.ts";
import type { ImportLine } from "../core/import-line.ts";
import { planImport } from "../core/import-plan.ts";
import { opMachines } from "../core/ops/kinds.ts";
import { onePlan } from "../core/ops/machine.ts";
import { recordAudit } from "../store/audit.ts";
import type { Tx } from "../store/database.ts";
import { readCells } from "../store/fleet-store.ts";
import { claimIdempotencyKey, type IdempotentRequest, storeAnswer } from "../store/idempotency.ts";
import { insertOp } from "../store/ops.ts";
import { changeRouting, lockNormalFleet } from "../store/routing-change.ts";
import {
  assignCells,
  type BadLine,
  type CellLoad,
  countRevisions,
  fits,
  insertPlaced,
  openImport,
  readClasses,
  resolveLines,
} from "../store/tenant-import.ts";
import { requireAdoptionAllows } from "./adoption-gate.ts";
import type { ApiContext } from "./context.ts";
import { type Answer, type Endpoint, endpoint, type Incoming } from "./endpoint.ts";
import { type ImportSource, importFormat, readImport } from "./import-lines.ts";
import { actorOf, auditRefusal } from "./mutation.ts";

/** Of those the answer shows; all of them are counted. */
const badLinesShownMax = 100;
const linesMax = 10_000_000;
/** A refused file is still read up to here, so that the client gets to see why. */
const drainBytesMax = 256 * 1024 * 1024;

const flag = z.enum(["true", "false"]).default("false");
const importQuery = {
  skipBadLines: flag,
  dryRun: flag,
  reason: z.string().max(500).default(""),
};
type Asked = Incoming & { readonly query: z.output<z.ZodObject<typeof importQuery>> };

export function tenantImportEndpoints(context: ApiContext): readonly Endpoint[] {
  let isRunning = false;
  const audit = { action: "tenant.import", object: () => "tenants" };
  return [
    endpoint({
      method: "post",
      path: "/v1/tenants/import",
      role: "operator",
      tag: "tenants",
      summary: "Create many tenants from a stream of CSV or NDJSON, all or nothing.",
      query: importQuery,
      streams: true,
      // A minute, not a moment: it must not hold a turn of the short mutations while it uploads.
      queues: false,
      answers: { 200: importResultSchema, 202: importResultSchema },
      audit,
      serve: async (asked) => {
        if (isRunning) {
          throw new CellError("STATE_CONFLICT", "Another import is running; one runs at a time.", {
            nextSteps: ["Repeat it when that one is done: cellctl op ls"],
          });
        }
        isRunning = true;
        try {
          return await runImport(context, asked);
        } catch (error) {
          await drain(asked.request.body);
          if (error instanceof CellError && asked.query.dryRun === "false") {
            const what = { ...audit, object: "tenants", caller: asked.caller };
            await auditRefusal(context, what, error, { reason: asked.query.reason, after: null });
          }
          throw error;
        } finally {
          isRunning = false;
        }
      },
    }),
  ];
}

async function runImport(context: ApiContext, asked: Asked): Promise<Answer> {
  const format = importFormat(asked.request.headers.get("content-type"));
  // Before a long upload: what would be refused in the end is refused at once.
  await context.database.transaction(async (tx) => {
    await lockNormalFleet(tx);
    requireAdoptionAllows(await readCells(tx));
  });
  const session = await openImport(context.database);
  try {
    // Not cancelled by us: what a refusal leaves unread is drained.
    const body = asked.request.body?.values({ preventCancel: true }) ?? emptyBody();
    const source = readImport(body, format);
    const read = createReader(source);
    await session.copy(read.good);
    const file = { bad: read.bad, badTotal: read.badTotal(), digest: source.digest() };
    return await session.transaction((tx) => applyImport(context, tx, asked, file));
  } finally {
    session.close();
  }
}

async function* emptyBody(): AsyncGenerator<Uint8Array, void> {
  // No body is an empty file.
}

/** A client that is still sending would see a broken connection instead of the answer. */
async function drain(body: ReadableStream<Uint8Array> | null): Promise<void> {
  if (body === null || body.locked) return;
  let bytes = 0;
  try {
    for await (const chunk of body) {
      bytes += chunk.byteLength;
      if (bytes > drainBytesMax) return;
    }
  } catch {
    // The upload broke off: there is nobody left to read the answer.
  }
}

type Reader = {
  readonly good: AsyncIterable<ImportLine>;
  readonly bad: readonly BadLine[];
  readonly badTotal: () => number;
};

/** Good lines go on to the database, bad ones are counted; only the first are kept. */
function createReader(source: ImportSource): Reader {
  const bad: BadLine[] = [];
  let badTotal = 0;
  let lines = 0;
  async function* good(): AsyncGenerator<ImportLine, void> {
    for await (const result of source.lines) {
      lines += 1;
      if (lines > linesMax) throw invalid(`more than ${linesMax} lines`, bad, badTotal);
      if (result.ok) {
        yield result.line;
        continue;
      }
      badTotal += 1;
      if (bad.length < badLinesShownMax) bad.push({ line: result.line, error: result.error });
    }
  }
  return { good: good(), bad, badTotal: () => badTotal };
}

const invalid = (what: string, bad: readonly BadLine[], total: number): CellError =>
  new CellError("IMPORT_INVALID", `${what}: ${total} bad lines; nothing was applied.`, {
    details: { badLines: bad, skipped: total },
    nextSteps: ["Correct the lines and import again, or skip them: --skip-bad-lines"],
  });

type FileFacts = {
  readonly bad: readonly BadLine[];
  readonly badTotal: number;
  readonly digest: string;
};

async function applyImport(
  context: ApiContext,
  tx: Tx,
  asked: Asked,
  file: FileFacts,
): Promise<Answer> {
  const { query } = asked;
  const dryRun = query.dryRun === "true";
  const idempotent = dryRun ? undefined : idempotentRequest(asked, file.digest);
  const replay = idempotent === undefined ? undefined : await claimIdempotencyKey(tx, idempotent);
  if (replay !== undefined) return { status: 202, body: replay.body };
  await lockNormalFleet(tx);
  const found = await resolveLines(tx, badLinesShownMax);
  const badLines = [...file.bad, ...found.bad]
    .sort((a, b) => a.line - b.line)
    .slice(0, badLinesShownMax);
  const skipped = file.badTotal + found.badTotal;
  if (skipped > 0 && query.skipBadLines === "false") {
    const [first] = badLines;
    throw invalid(`line ${first?.line}: ${first?.error}`, badLines, skipped);
  }
  const loads = await placeAll(tx);
  const accepted = loads.reduce((sum, { tenants }) => sum + tenants, 0);
  const perCell = Object.fromEntries(loads.map(({ cell, tenants }) => [cell, tenants]));
  const result = { op: null, accepted, skipped, badLines, perCell, next_steps: [] };
  if (dryRun || accepted === 0) return { status: 200, body: result };
  const op = await record(context, tx, asked, loads, { accepted, skipped, perCell });
  const body = { ...result, op, next_steps: [`cellctl op watch ${op.id}`] };
  if (idempotent !== undefined) await storeAnswer(tx, idempotent, { status: 202, body });
  return { status: 202, body };
}

/**
 * Plans with the mean size of each class first, which wastes no room; where real sizes then do not
 * fit somewhere, with the largest, which always does.
 */
async function placeAll(tx: Tx): Promise<readonly CellLoad[]> {
  const cells = await readCells(tx);
  const classes = await readClasses(tx);
  requireAdoptionAllows(
    cells,
    classes.map(({ cell }) => cell ?? undefined),
  );
  for (const charge of ["mean", "max"] as const) {
    const plan = planImport(cells, classes, charge);
    if (plan.kind === "blocked") {
      throw new CellError("CAPACITY_EXHAUSTED", plan.text, {
        details: { unplaced: plan.unplaced },
        nextSteps: ["cellctl cell ls", "cellctl cell create ID"],
      });
    }
    const loads = await assignCells(tx, plan.shares);
    if (fits(cells, loads)) return loads;
  }
  throw new CellError(
    "CAPACITY_EXHAUSTED",
    "The tenants of a container find no room in its cell.",
    {
      nextSteps: ["cellctl cell ls"],
    },
  );
}

async function record(
  context: ApiContext,
  tx: Tx,
  asked: Asked,
  loads: readonly CellLoad[],
  counts: { readonly accepted: number; readonly skipped: number; readonly perCell: object },
) {
  const nowMs = context.clock.nowMs();
  const actor = actorOf(asked.caller);
  const { reason } = asked.query;
  await recordAudit(
    tx,
    {
      actor,
      action: "tenant.import",
      object: "tenants",
      reason,
      outcome: "accepted",
      after: counts,
    },
    nowMs,
  );
  const id = newOpId(context.random, nowMs);
  const revisions = Math.max(1, await countRevisions(tx));
  const last = await changeRouting(tx, { config: false, revisions });
  await insertPlaced(tx, loads, last - revisions + 1, id);
  const machine = opMachines["tenant.import"];
  return insertOp(tx, {
    id,
    kind: "tenant.import",
    object: `${counts.accepted} tenants`,
    step: machine.first,
    state: "running",
    headline: `${counts.accepted} tenants placed; waiting until their cells apply them`,
    plan: planOf(loads),
    input: { perCell: counts.perCell },
    actor: actor.name,
    reason,
    revision: null,
    nowMs,
    deadlineMs: machine.deadlineMs(machine.first),
  });
}

const planOf = (loads: readonly CellLoad[]): Plan =>
  onePlan(
    "tenant.import",
    loads.map(({ cell, tenants }) => ({
      action: "place",
      object: cell,
      text: `${tenants} tenants`,
    })),
  );

/** The body's digest stands for the body: the same key with another file is a mismatch. */
function idempotentRequest(asked: Asked, digest: string): IdempotentRequest | undefined {
  const key = asked.request.headers.get(idempotencyHeader);
  if (key === null) return undefined;
  if (!/^[\x21-\x7e]{1,200}$/.test(key)) {
    throw new CellError(
      "VALIDATION_FAILED",
      `${idempotencyHeader}: must be 1 to 200 visible ASCII characters`,
    );
  }
  const requestHash = createHash("sha256")
    .update(`POST /v1/tenants/import\n${asked.query.skipBadLines}\n${digest}`, "utf8")
    .digest("hex");
  return { tokenId: asked.caller.tokenId, key, requestHash };
}
