/** Keyspaces: list, read, create with their containers spread over the open cells, change while empty. */
import type { z } from "zod";
import {
  acceptedSchema,
  changeKeyspaceSchema,
  createKeyspaceSchema,
  dryRunSchema,
  keyspaceSchema,
  list,
} from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import { type KeyspaceName, keyspaceNameSchema, parseTenantId } from "../../contract/ids.ts";
import { compareBytes, rangeKey, slotKey } from "../../contract/placement-key.ts";
import type { GuardMode } from "../../contract/routing-table.ts";
import { planKeyspace } from "../core/ops/keyspace-create.ts";
import { onePlan } from "../core/ops/machine.ts";
import { spreadContainers } from "../core/place.ts";
import { readCells } from "../store/fleet-store.ts";
import {
  insertKeyspace,
  keyspaceExists,
  listKeyspaces,
  placesNothing,
  requireKeyspace,
  setGuardMode,
} from "../store/keyspaces.ts";
import { insertPending } from "../store/placements.ts";
import { changeRouting, lockNormalFleet } from "../store/routing-change.ts";
import { accept, dryRunAnswer, freshOpId } from "./accept.ts";
import { requireAdoptionAllows } from "./adoption-gate.ts";
import type { ApiContext } from "./context.ts";
import { type Answer, type Endpoint, endpoint } from "./endpoint.ts";
import { mutation, type Work } from "./mutation.ts";
import { decodeCursor, page, pageQuery } from "./paging.ts";

type Wanted = z.output<typeof createKeyspaceSchema>;

export function keyspaceEndpoints(context: ApiContext): readonly Endpoint[] {
  const { database } = context;
  return [
    endpoint({
      method: "get",
      path: "/v1/keyspaces",
      role: "viewer",
      tag: "keyspaces",
      summary: "List keyspaces.",
      query: pageQuery,
      answers: { 200: list(keyspaceSchema) },
      serve: async ({ query }) => {
        const after = decodeCursor(query.cursor, "");
        const rows = (await listKeyspaces(database.read))
          .filter(({ name }) => name > after)
          .sort((a, b) => (a.name < b.name ? -1 : 1));
        return { status: 200, body: page(rows, query.limit, ({ name }) => name) };
      },
    }),
    endpoint({
      method: "get",
      path: "/v1/keyspaces/{name}",
      role: "viewer",
      tag: "keyspaces",
      summary: "One keyspace.",
      params: { name: keyspaceNameSchema },
      answers: { 200: keyspaceSchema },
      serve: async ({ path }) => {
        await requireKeyspace(database.read, path.name);
        const all = await listKeyspaces(database.read);
        return { status: 200, body: all.find(({ name }) => name === path.name) };
      },
    }),
    mutation(context, {
      method: "post",
      path: "/v1/keyspaces",
      role: "operator",
      tag: "keyspaces",
      summary: "Create a keyspace; ranges and slots are spread over the open cells.",
      body: createKeyspaceSchema,
      answers: { 200: dryRunSchema, 202: acceptedSchema },
      action: "keyspace.create",
      object: ({ body }) => body.name,
      apply: (work, { body }) => createKeyspace(context, work, body),
    }),
    mutation(context, {
      method: "put",
      path: "/v1/keyspaces/{name}",
      role: "operator",
      tag: "keyspaces",
      summary: "Change the guard mode of a keyspace in which nothing is placed.",
      params: { name: keyspaceNameSchema },
      body: changeKeyspaceSchema,
      answers: { 200: dryRunSchema, 202: acceptedSchema },
      action: "keyspace.update",
      object: ({ path }) => path.name,
      apply: (work, { path, body }) => changeKeyspace(context, work, path.name, body.guardMode),
    }),
  ];
}

async function changeKeyspace(
  context: ApiContext,
  work: Work,
  name: KeyspaceName,
  guardMode: GuardMode,
): Promise<Answer> {
  const { tx } = work;
  await lockNormalFleet(tx);
  const before = await requireKeyspace(tx, name);
  if (!(await placesNothing(tx, name))) {
    throw new CellError(
      "STATE_CONFLICT",
      `Tenants are placed in the keyspace ${name}; its guard mode ${before.guardMode} stays.`,
      {
        nextSteps: [`cellctl keyspace create OTHER --strategy directory --guard-mode ${guardMode}`],
      },
    );
  }
  const plan = onePlan("keyspace.update", [
    { action: "set", object: name, text: `set guard mode ${guardMode}` },
    { action: "publish", object: "routers", text: "wait until all live routers apply it" },
  ]);
  if (work.dryRun) return dryRunAnswer(plan);
  await work.record({ guardMode: before.guardMode }, { guardMode });
  const revision = await changeRouting(tx, { config: true });
  await setGuardMode(tx, name, guardMode);
  return accept(work, {
    id: freshOpId(context, work),
    // Nothing but the routers need to hear of it; cells are told with the next placement.
    kind: "routing.update",
    object: name,
    plan,
    input: {},
    revision,
    headline: `guard mode ${guardMode} is recorded; telling the routers`,
  });
}

async function createKeyspace(context: ApiContext, work: Work, wanted: Wanted): Promise<Answer> {
  const { tx } = work;
  await lockNormalFleet(tx);
  const { name, strategy, guardMode } = wanted;
  const containers = containersOf(wanted);
  if (await keyspaceExists(tx, name)) {
    throw new CellError("KEYSPACE_EXISTS", `The keyspace ${name} exists.`, {
      nextSteps: [`cellctl keyspace get ${name}`],
    });
  }
  const cells = await readCells(tx);
  if (containers.size > 0) requireAdoptionAllows(cells);
  const spread = spreadContainers(cells, [...containers.keys()]);
  if (spread === undefined && containers.size > 0) {
    throw new CellError("CAPACITY_EXHAUSTED", "No healthy cell is open for placement.", {
      nextSteps: ["cellctl cell ls"],
    });
  }
  const plan = planKeyspace(name, strategy, spread ?? new Map());
  if (work.dryRun) return dryRunAnswer(plan);
  const slotCount = wanted.slotCount ?? null;
  await work.record(null, { name, strategy, guardMode, slotCount, splitAt: wanted.splitAt ?? [] });
  const id = freshOpId(context, work);
  const revision = await changeRouting(tx, { config: true });
  await insertKeyspace(tx, { name, strategy, guardMode, slotCount });
  const rows = [...(spread ?? [])].map(([key, cell]) => ({
    key,
    keyspace: name,
    kind: strategy === "slots" ? ("slot" as const) : ("range" as const),
    value: containers.get(key) ?? "",
    cell,
    op: id,
    revision,
    epochMin: 1,
  }));
  await insertPending(tx, rows);
  return accept(work, {
    id,
    kind: "keyspace.create",
    object: name,
    plan,
    input: { keyspace: name, containers: containers.size },
    headline: `${containers.size} containers are placed; waiting until their cells apply them`,
  });
}

/** Placement key → its value: slot number or start of range. */
function containersOf(wanted: Wanted): ReadonlyMap<string, string> {
  if (wanted.strategy === "directory") {
    forbid(wanted.slotCount !== undefined, "slotCount", "is for the strategy slots");
    forbid(wanted.splitAt !== undefined, "splitAt", "is for the strategy range");
    return new Map();
  }
  return wanted.strategy === "slots" ? slotsOf(wanted.name, wanted) : rangesOf(wanted.name, wanted);
}

function slotsOf(name: KeyspaceName, { slotCount = 0, splitAt }: Wanted): Map<string, string> {
  forbid(splitAt !== undefined, "splitAt", "is for the strategy range");
  const powerOfTwo = slotCount > 0 && (slotCount & (slotCount - 1)) === 0;
  forbid(!powerOfTwo, "slotCount", "must be a power of two from 1 to 16384 for the strategy slots");
  const slots = Array.from({ length: slotCount }, (_, slot) => slot);
  return new Map(slots.map((slot) => [slotKey(name, slot), String(slot)]));
}

function rangesOf(name: KeyspaceName, { slotCount, splitAt = [] }: Wanted): Map<string, string> {
  forbid(slotCount !== undefined, "slotCount", "is for the strategy slots");
  for (const start of splitAt) {
    forbid(parseTenantId(start) === undefined, "splitAt", `${start} is not a tenant id`);
  }
  const starts = ["", ...splitAt.toSorted(compareBytes)];
  forbid(new Set(starts).size !== starts.length, "splitAt", "names a start twice");
  return new Map(starts.map((start) => [rangeKey(name, start), start]));
}

function forbid(wrong: boolean, field: string, rule: string): void {
  if (wrong) throw new CellError("VALIDATION_FAILED", `${field}: ${rule}`);
}
