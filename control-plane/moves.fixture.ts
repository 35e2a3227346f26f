/**
 * For tests of moves as they are asked for: the real API over a real database, three cells, some
 * tenants. No executor runs: what is recorded stays as it was recorded, and steps are set by the test.
 */
import { sql } from "drizzle-orm";
import { z } from "zod";
import { CellError } from "../contract/errors.ts";
import {
  type Move,
  type MoveAction,
  type MoveCheck,
  type MoveStep,
  moveActedSchema,
  movePlansSchema,
  moveSchema,
  startedMovesSchema,
} from "../contract/move-api.ts";
import { must } from "../runtime/assert.ts";
import type { JsonClient } from "../runtime/http-client.ts";
import { startTestPostgres } from "../tests/postgres.ts";
import { auditEndpoints } from "./api/audit.ts";
import { cellStoreEndpoints } from "./api/cell-stores.ts";
import { cellEndpoints } from "./api/cells.ts";
import type { LookAtMove, MoveLook, MoveQuestion } from "./api/context.ts";
import { drainEndpoints } from "./api/drain.ts";
import { keyspaceEndpoints } from "./api/keyspaces.ts";
import { moveEndpoints } from "./api/moves.ts";
import { opEndpoints } from "./api/ops.ts";
import { overrideEndpoints } from "./api/overrides.ts";
import { rebalanceEndpoints } from "./api/rebalance.ts";
import { safetyEndpoints } from "./api/safety.ts";
import { sloEndpoints } from "./api/slo.ts";
import { tenantLifeEndpoints } from "./api/tenant-life.ts";
import { tenantEndpoints } from "./api/tenants.ts";
import { type ControlFixture, openCell, startControl } from "./control.fixture.ts";

const timeoutMs = 30_000;

export const fine: MoveCheck = {
  ...{ id: "schema", cell: "cell-02", store: "main", verdict: "ok" },
  ...{ text: "same schema", fix: "" },
};
export const seen: MoveLook = {
  stores: ["main"],
  tables: [{ store: "main", table: "public.orders", rows: 7, bytes: 700 }],
  checks: [fine],
  estimate: { rows: 7, bytes: 700, copyMs: 20, pauseMs: 15 },
};
export const tenants = ["acme", "globex", "hooli", "initech", "umbrella", "wonka"];

export type MovesApi = Awaited<ReturnType<typeof startMovesApi>>;

export async function startMovesApi() {
  const postgres = await startTestPostgres();
  const looks: { asked: MoveQuestion[]; look: LookAtMove } = { asked: [], look: async () => seen };
  const control = await startControl(await postgres.createDatabase("moves"), (context) => {
    const mover = {
      ...context,
      lookAtMove: (question: MoveQuestion, signal: AbortSignal) => {
        looks.asked.push(question);
        return looks.look(question, signal);
      },
    };
    return [
      ...moveEndpoints(mover),
      ...tenantEndpoints(mover),
      ...tenantLifeEndpoints(mover),
      ...overrideEndpoints(mover),
      ...keyspaceEndpoints(mover),
      ...cellEndpoints(mover),
      ...cellStoreEndpoints(mover),
      ...opEndpoints(mover),
      ...auditEndpoints(mover),
      ...safetyEndpoints(mover),
      ...sloEndpoints(mover),
      ...drainEndpoints(mover),
      ...rebalanceEndpoints(mover),
    ];
  });
  const client = await control.client("admin");
  const run = async (text: string) => (await control.database.read.execute(sql.raw(text))).rows;
  const api = { postgres, control, client, looks, run, ...callsOf(client), ...looksAt(run) };
  await populate(api);
  return {
    ...api,
    close: async () => {
      await control.close();
      await postgres.stop();
    },
  };
}

export const callsOf = (client: JsonClient) => {
  const get = <T>(path: string, schema: z.ZodType<T>) =>
    client.call({ method: "GET", path, schema, timeoutMs });
  const post = <T>(path: string, body: unknown, schema: z.ZodType<T>, key?: string) => {
    const headers = key === undefined ? {} : { headers: { "idempotency-key": key } };
    return client.call({ method: "POST", path, body, schema, timeoutMs, ...headers });
  };
  const start = (body: unknown, key?: string) => post("/v1/moves", body, startedMovesSchema, key);
  return {
    get,
    post,
    start,
    plan: (body: unknown) => post("/v1/moves/plan", body, movePlansSchema),
    move: (id: string) => get(`/v1/moves/${id}`, moveSchema),
    act: (id: string, action: MoveAction, body: unknown = {}) =>
      post(`/v1/moves/${id}/${action}`, body, moveActedSchema),
    /** One move of these tenants to cell-02. */
    begin: async (...ids: string[]): Promise<Move> =>
      must((await start({ tenants: ids, to: "cell-02", together: 100 })).items[0], "move"),
  };
};

type Run = (text: string) => Promise<Record<string, unknown>[]>;

const looksAt = (run: Run) => {
  const setStep = (id: string, step: MoveStep, state = "running") =>
    run(`update cellfleet_control.op set step = '${step}', state = '${state}' where id = '${id}'`);
  return {
    setStep,
    /** As the executor leaves it after the switch. */
    switchKeys: async (move: Move, step: MoveStep): Promise<void> => {
      await setStep(move.id, step);
      const keys = move.keys.map((key) => `'${key}'`).join(",");
      await run(`update cellfleet_control.placement set cell = '${move.target}', epoch = epoch + 1
                  where key in (${keys})`);
    },
    usage: async (cell: string) =>
      (
        await run(`select used_tenants::int as n from cellfleet_control.cell where id = '${cell}'`)
      )[0]?.["n"],
    count: async (table: string) =>
      (await run(`select count(*)::int as n from cellfleet_control.${table}`))[0]?.["n"],
  };
};

async function populate(api: {
  readonly control: Pick<ControlFixture, "database">;
  readonly post: ReturnType<typeof callsOf>["post"];
  readonly run: Run;
}): Promise<void> {
  for (const id of ["cell-01", "cell-02", "cell-03"]) await openCell(api.control.database, id);
  for (const id of tenants) {
    const tier = id === "hooli" || id === "wonka" ? "gold" : "standard";
    const body = { id, cell: "cell-01", tier, size: { bytes: 1000 }, labels: { team: "a" } };
    await api.post("/v1/tenants", body, z.unknown());
  }
  await api.post("/v1/keyspaces", { name: "users", strategy: "slots", slotCount: 4 }, z.unknown());
  await api.run(
    `update cellfleet_control.placement set state = 'active', cell = 'cell-01', epoch = epoch + 1`,
  );
  await api.post("/v1/tenants", { id: "ann", keyspace: "users" }, z.unknown());
}

/** As it was when it was made, whatever a test has done. */
export async function resetMoves({ looks, run }: MovesApi): Promise<void> {
  looks.asked = [];
  looks.look = async () => seen;
  await run(`truncate cellfleet_control.move, cellfleet_control.move_key`);
  await run(`delete from cellfleet_control.op`);
  await run(
    `update cellfleet_control.placement set cell = 'cell-01', state = 'active', epoch = epoch + 1`,
  );
  await run(`update cellfleet_control.cell set state = 'active', health = 'healthy', stage = 'enforce',
               stage_applied = 'enforce', adopted = false, capacity_tenants = 100000,
               used_tenants = case id when 'cell-01' then 7 else 0 end, used_bytes = 0`);
  await run(`update cellfleet_control.fleet set mode = 'normal'`);
}

/** What a call was refused with. */
export async function refusal(call: Promise<unknown>): Promise<CellError> {
  try {
    await call;
  } catch (error) {
    if (error instanceof CellError) return error;
    throw error;
  }
  throw new Error("the call was accepted");
}
