/** The switch as the executor calls it: as the mover alone, in any order, again and too late. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { CellError } from "../../contract/errors.ts";
import { type CellStore, createCellStore, refusalOf, storeRoles } from "../../tests/cell-store.ts";
import type { MoveTask } from "../ports.ts";
import { startTwoCells, type TwoCells } from "../two-cells.fixture.ts";
import {
  codeOf,
  later,
  openSwitch,
  patience,
  type Switching,
  startStream,
  waitFor,
} from "./streamed.fixture.ts";

const acme = "default/tenant/acme";
const lockMs = 50;

let cells: TwoCells;
/** A second store of each cell. */
let billing: { readonly a: CellStore; readonly b: CellStore };
let bench: Switching;
let number = 0;
let task: MoveTask;

beforeAll(async () => {
  cells = await startTwoCells();
  const server = cells.serverOf(cells.a);
  billing = {
    a: await createCellStore(server, "billing-a"),
    b: await createCellStore(server, "billing-b"),
  };
  await Promise.all([billing.a, billing.b].map((store) => store.grantLease()));
});
afterAll(async () => {
  await Promise.all([billing.a, billing.b].map((store) => store.close()));
  await cells.close();
});
beforeEach(async () => {
  bench = openSwitch();
  number += 1;
  const tenant = `acme${number}`;
  const both = [cells.a, billing.a];
  for (const store of both) await cells.own(store, `default/tenant/${tenant}`, "active");
  const one = cells.task({ number, tenants: [tenant] });
  task = {
    ...one,
    stores: [
      ...one.stores,
      {
        name: "billing",
        source: { ...cells.login(billing.a), cell: one.source, store: "billing" },
        target: { ...cells.login(billing.b), cell: one.target, store: "billing" },
      },
    ],
  };
});
afterEach(() => bench.close());

const keyOf = () => String(task.keys[0]?.key);
const tenantOf = () => keyOf().slice(acme.lastIndexOf("/") + 1);

async function stateIn(store: CellStore): Promise<string> {
  const { rows } = await store.admin.query(
    "select state, epoch, attempt from cellfleet.ownership where key = $1",
    [keyOf()],
  );
  return rows.map(({ state, epoch, attempt }) => `${state} ${epoch} ${attempt}`).join();
}
const sources = () => Promise.all([cells.a, billing.a].map(stateIn));
const insert = (store: CellStore) =>
  store.app.query("insert into orders (tenant_id, item, quantity) values ($1, 'tea', 1)", [
    tenantOf(),
  ]);
const markersIn = async (store: CellStore): Promise<number> =>
  (
    await store.admin.query("select from cellfleet.move_marker where name like $1", [
      `%${task.op}%`,
    ])
  ).rowCount ?? 0;

describe("a whole switch, two stores, by the mover", () => {
  test("each step again changes nothing, and the key has one owner at any time", async () => {
    const { switching, snapshots } = bench;
    const stops = [
      await startStream(cells, { from: cells.a, to: cells.b, op: task.op }),
      await startStream(
        { serverOf: () => cells.serverOf(cells.a) },
        { from: billing.a, to: billing.b, op: task.op },
      ),
    ];
    const twice = async (step: () => Promise<void>) => {
      await step();
      await step();
    };
    await insert(cells.a);
    await switching.warm(task);
    const touched = await cells.a.admin.query(
      "select from cellfleet.move_marker where op = '' union all select from cellfleet.gate_order where op = ''",
    );
    expect([touched.rowCount, ...(await sources())]).toEqual([
      0,
      expect.stringMatching(/^active 1/),
      expect.stringMatching(/^active 1/),
    ]);
    await twice(() => switching.closeGates(task, patience()));
    await twice(() => switching.fence(task, lockMs));
    expect(await sources()).toEqual(["fenced 1 1", "fenced 1 1"]);
    expect(await refusalOf(insert(billing.a))).toBe("CF001");
    await twice(() => switching.drain(task, patience()));
    const frozen = snapshots.take(task.op) ?? [];
    expect(frozen.map(({ store }) => store)).toEqual(["main", "billing"]);
    for (const { source, target } of frozen) await Promise.all([source.close(), target.close()]);
    expect(await refusalOf(insert(cells.b))).toBe("CF001");
    await twice(() => switching.activate(task));
    await twice(() => switching.tellMoved(task));
    await twice(() => switching.openGates(task));
    expect(await sources()).toEqual(["moved 1 1", "moved 1 1"]);
    expect(await Promise.all([cells.b, billing.b].map(stateIn))).toEqual([
      "active 2 1",
      "active 2 1",
    ]);
    await insert(cells.b);
    expect(await refusalOf(insert(cells.a))).toBe("CF001");
    expect(await markersIn(cells.a)).toBe(1);
    for (const stop of stops) await stop();
  });

  test("a key that is home again at a later epoch is as good as moved", async () => {
    await bench.switching.fence(task, lockMs);
    await cells.own(cells.a, keyOf(), "active", 3);
    await cells.own(billing.a, keyOf(), "dropped", 2);
    await bench.switching.tellMoved(task);
    expect(await stateIn(cells.a)).toMatch(/^active 3/);
    expect(await codeOf(bench.switching.unfence(later(task, 2)))).toBe("done");
    expect(await stateIn(cells.a)).toMatch(/^active 3/);
  });

  test("an activation that is not read back is none", async () => {
    await cells.own(billing.b, keyOf(), "active", 7);
    expect(await codeOf(bench.switching.activate(task))).toBe("STATE_CONFLICT");
  });
});

describe("a transaction that does not end", () => {
  test("blocks the fence of its store alone, is named, and the key goes on being served", async () => {
    const holder = await billing.a.connect();
    await holder.query("set application_name = 'slow report'");
    await holder.query("begin");
    await holder.query("insert into orders (tenant_id, item, quantity) values ($1, 'tea', 1)", [
      tenantOf(),
    ]);
    const { rows } = await holder.query("select pg_backend_pid() as pid");
    const error = await bench.switching.fence(task, lockMs).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(CellError);
    expect(error).toMatchObject({
      code: "FENCE_BLOCKED",
      details: {
        store: "billing",
        sessions: [
          {
            pid: rows[0]?.pid,
            user_name: storeRoles.appRole,
            application: "slow report",
            state: "idle in transaction",
            key: keyOf(),
          },
        ],
      },
    });
    expect(await sources()).toEqual(["fenced 1 1", expect.stringMatching(/^active 1/)]);
    expect([await markersIn(cells.a), await markersIn(billing.a)]).toEqual([1, 0]);
    // The first store is taken back; the next try has a marker of its own.
    await bench.switching.unfence(later(task, 2));
    expect(await sources()).toEqual(["active 1 2", "active 1 2"]);
    await insert(cells.a);
    await holder.query("commit");
    await bench.switching.fence(later(task, 3), lockMs);
    expect(await sources()).toEqual(["fenced 1 3", "fenced 1 3"]);
    expect([await markersIn(cells.a), await markersIn(billing.a)]).toEqual([2, 1]);
  });

  test("many keys are waited for no longer than one", async () => {
    const tenants = Array.from({ length: 20 }, (_, nth) => `many${nth}`);
    const holder = await cells.a.connect();
    await holder.query("begin");
    for (const tenant of tenants) {
      await cells.own(cells.a, `default/tenant/${tenant}`, "active");
      await holder.query("insert into orders (tenant_id, item, quantity) values ($1, 'tea', 1)", [
        tenant,
      ]);
    }
    const many = cells.task({ number, tenants });
    const error = await bench.switching.fence(many, lockMs).catch((e: unknown) => e);
    expect(error).toMatchObject({ code: "FENCE_BLOCKED" });
    await holder.query("rollback");
    await bench.switching.fence(many, lockMs);
  });
});

describe("what comes too late", () => {
  test("a fence of an attempt that was taken back never takes effect, in any store", async () => {
    // Crashed between two fences: the first store has it, the second one does not.
    const half = { ...task, stores: task.stores.slice(0, 1) };
    await bench.switching.fence(half, lockMs);
    expect(await sources()).toEqual(["fenced 1 1", expect.stringMatching(/^active 1/)]);
    await bench.switching.unfence(later(task, 2));
    for (const store of task.stores) {
      const late = bench.switching.fence({ ...task, stores: [store] }, lockMs);
      expect(await codeOf(late)).toBe("STATE_CONFLICT");
    }
    expect(await sources()).toEqual(["active 1 2", "active 1 2"]);
    await Promise.all([insert(cells.a), insert(billing.a)]);
    expect([await markersIn(cells.a), await markersIn(billing.a)]).toEqual([1, 0]);
  });

  test("a fence is not taken back by its own attempt, nor by a smaller one", async () => {
    await bench.switching.fence(later(task, 2), lockMs);
    for (const attempt of [1, 2]) {
      const unfence = bench.switching.unfence(later(task, attempt));
      expect(await codeOf(unfence)).toBe("STATE_CONFLICT");
    }
    expect(await sources()).toEqual(["fenced 1 2", "fenced 1 2"]);
  });

  test("nothing is taken back after the key has left", async () => {
    await bench.switching.fence(task, lockMs);
    await bench.switching.tellMoved(task);
    expect(await codeOf(bench.switching.unfence(later(task, 2)))).toBe("done");
    expect(await sources()).toEqual(["moved 1 1", "moved 1 1"]);
  });

  test("a key that somebody else fenced is neither fenced nor opened", async () => {
    await cells.own(billing.a, keyOf(), "fenced");
    expect(await codeOf(bench.switching.fence(task, lockMs))).toBe("STATE_CONFLICT");
    expect(await sources()).toEqual(["fenced 1 1", expect.stringMatching(/^fenced 1/)]);
    const suspended = await stateIn(billing.a);
    await bench.switching.unfence(later(task, 2));
    expect(await sources()).toEqual(["active 1 2", suspended]);
    expect(await markersIn(billing.a)).toBe(0);
  });

  test("gates obey the greatest attempt, and the last word of ownership", async () => {
    const { switching } = bench;
    const closed = async () => {
      const { rows } = await cells.a.admin.query(
        "select attempt from cellfleet.gate_in_force where key = $1",
        [keyOf()],
      );
      return rows.map(({ attempt }) => attempt);
    };
    await switching.closeGates(task, patience());
    await switching.openGates(later(task, 2));
    expect(await codeOf(switching.closeGates(task, patience()))).toBe("STATE_CONFLICT");
    expect(await closed()).toEqual([]);
    await switching.closeGates(later(task, 3), patience());
    expect(await codeOf(switching.openGates(later(task, 2)))).toBe("STATE_CONFLICT");
    expect(await closed()).toEqual([3]);
    // A later operation has the key: what an earlier one says of its gate is over.
    await switching.openGates(later(task, 4));
    const change = { key: keyOf(), state: "active", epoch: 1, op: "op_9later", attempt: 1 };
    await cells.a.agent.query("select cellfleet.apply_ownership($1, null)", [
      JSON.stringify([change]),
    ]);
    expect(await codeOf(switching.closeGates(later(task, 5), patience()))).toBe("STATE_CONFLICT");
    expect(await closed()).toEqual([]);
  });

  test("a closed gate means nothing for a key that has come back", async () => {
    await bench.switching.closeGates(task, patience());
    await cells.own(cells.a, keyOf(), "active", 3);
    const { rowCount } = await cells.a.admin.query(
      "select from cellfleet.gate_in_force where key = $1",
      [keyOf()],
    );
    expect(rowCount).toBe(0);
  });
});

describe("gates", () => {
  /** As an agent does, on a session of its own. */
  async function present(instance: string) {
    const session = await cells.a.connect(storeRoles.agentRole);
    await session.query("select cellfleet.be_present($1)", [instance]);
    return {
      answer: (attempt: number, inFlight: number) =>
        session.query("select cellfleet.answer_gate($1, $2, $3, $4)", [
          ...[instance, task.op, attempt, inFlight],
        ]),
      die: () => session.end(),
    };
  }

  test("are waited for at every agent that lives, and named when they are not done", async () => {
    const one = await present("one");
    const two = await present("two");
    const dead = await present("dead");
    const again = await present("two");
    const budget = new AbortController();
    const closing = bench.switching.closeGates(task, budget.signal).catch((e: unknown) => e);
    await waitFor("the gate is closed", async () => {
      await one.answer(1, 3);
      const { rowCount } = await cells.a.admin.query("select from cellfleet.gate_answer");
      return rowCount === 1;
    });
    budget.abort();
    expect(await closing).toMatchObject({
      code: "PAUSE_BUDGET_EXCEEDED",
      message: expect.stringMatching(
        /^The agents of cell-a had not closed their gates within \d+ ms: dead has not answered, one has 3, two has not answered; 3 requests in flight/,
      ),
      details: {
        instances: [
          { instance: "dead", inFlight: null },
          { instance: "one", inFlight: 3 },
          { instance: "two", inFlight: null },
        ],
      },
    });
    const next = later(task, 2);
    let isDone = false;
    const waiting = bench.switching.closeGates(next, patience()).then(() => {
      isDone = true;
    });
    await waitFor("the gate is closed again", async () => {
      // What was answered to the attempt before says nothing of this one.
      await one.answer(1, 0);
      await one.answer(2, 0);
      await two.answer(1, 0);
      const { rowCount } = await cells.a.admin.query(
        "select from cellfleet.gate_answer where attempt = 2",
      );
      return rowCount === 1;
    });
    // Of two sessions of one agent one is enough to be there.
    await two.die();
    expect(isDone).toBe(false);
    await again.answer(2, 0);
    expect(isDone).toBe(false);
    await dead.die();
    await waiting;
    await one.die();
    await again.die();
  });

  test("of the agent are what it may say, and nothing of the mover's", async () => {
    const { agent, app } = cells.a;
    for (const role of [agent, app]) {
      for (const call of [
        "close_gates('[]', 'op_1', 1)",
        "open_gates('op_1', 1)",
        "fence_for_move('[]', 50, 'm', 'op_1', 1, 'n')",
        "unfence_for_move('[]', 50)",
        "apply_for_move('[]', 50)",
        "gates_open('op_1', 1)",
        "note_attempt('op_1', 1)",
        "sessions_in_the_way('{}')",
      ]) {
        expect(await refusalOf(role.query(`select cellfleet.${call}`))).toBe("42501");
      }
    }
    for (const call of ["be_present('x')", "answer_gate('x', 'op_1', 1, 0)"]) {
      expect(await refusalOf(app.query(`select cellfleet.${call}`))).toBe("42501");
    }
    expect(await refusalOf(app.query("select from cellfleet.move_marker"))).toBe("42501");
  });
});

test("a marker that does not arrive is told, and no snapshot stays open", async () => {
  await bench.switching.fence(task, lockMs);
  expect(await codeOf(bench.switching.drain(task, AbortSignal.timeout(20)))).toBe(
    "PAUSE_BUDGET_EXCEEDED",
  );
  expect(bench.snapshots.take(task.op)).toBeUndefined();
  await waitFor("no transaction of the mover is open", async () => {
    const { rowCount } = await cells.a.admin.query(
      "select from pg_stat_activity where usename = $1 and state like 'idle in transaction%'",
      [storeRoles.moverRole],
    );
    return rowCount === 0;
  });
});

test("connections that a restart has cut are opened anew, and a database that is gone is told", async () => {
  await bench.switching.warm(task);
  await cells.a.admin.query(
    "select pg_terminate_backend(pid) from pg_stat_activity where usename = $1",
    [storeRoles.moverRole],
  );
  await bench.switching.closeGates(task, patience());
  const [main] = task.stores;
  if (main === undefined) throw new Error("the task has a store");
  const url = main.source.url.replace(/\/[^/]*$/, "/nowhere");
  const lost = { ...task, stores: [{ ...main, source: { ...main.source, url } }] };
  expect(await codeOf(bench.switching.openGates(lost))).toBe("CELL_DATABASE_UNREACHABLE");
});
