/** For tests of the switch: two cells with a stream between them that carries orders and markers. */
import pg from "pg";
import { vi } from "vitest";
import { CellError } from "../../contract/errors.ts";
import { systemClock } from "../../runtime/clock.ts";
import { systemRandom } from "../../runtime/random.ts";
import type { CellStore } from "../../tests/cell-store.ts";
import { createFrozenSnapshots, type FrozenSnapshots } from "../frozen-snapshots.ts";
import type { MoveTask } from "../ports.ts";
import type { TwoCells } from "../two-cells.fixture.ts";
import { createSwitch, type Switch } from "./switch.ts";

export type Switching = {
  readonly switching: Switch;
  readonly snapshots: FrozenSnapshots;
  readonly close: () => Promise<void>;
};

export function openSwitch(): Switching {
  const snapshots = createFrozenSnapshots();
  const switching = createSwitch({ clock: systemClock, random: systemRandom, snapshots });
  return {
    switching,
    snapshots,
    close: async () => {
      await snapshots.close();
      await switching.close();
    },
  };
}

/** As a move makes one, for all orders; the markers are those of `op`. Returns how it is taken down. */
export async function startStream(
  cells: Pick<TwoCells, "serverOf">,
  { from, to, op }: { readonly from: CellStore; readonly to: CellStore; readonly op: string },
): Promise<() => Promise<void>> {
  const name = `t_${from.name}_${op}`.replaceAll("-", "_");
  await from.admin.query(
    `create publication ${name} for table orders, cellfleet.move_marker where (op = ${pg.escapeLiteral(op)})
       with (publish = 'insert,update,delete')`,
  );
  await from.admin.query("select pg_create_logical_replication_slot($1, 'pgoutput')", [name]);
  await to.admin.query(
    `create subscription ${name} connection ${pg.escapeLiteral(cells.serverOf(from).url(from.name))}
       publication ${name} with (create_slot = false, copy_data = false, origin = none, synchronous_commit = on)`,
  );
  await waitFor("the stream runs", async () => {
    const { rows } = await from.admin.query(
      "select from pg_replication_slots where slot_name = $1 and active",
      [name],
    );
    return rows.length === 1;
  });
  return async () => {
    await to.admin.query(`drop subscription ${name}`);
    await from.admin.query(`drop publication ${name}`);
  };
}

/** For as long as a test of a machine under load may need. */
export const patience = (): AbortSignal => AbortSignal.timeout(30_000);

/** The same move, at a later attempt. */
export const later = (task: MoveTask, attempt: number): MoveTask => ({ ...task, attempt });

export const waitFor = (what: string, holds: () => Promise<boolean> | boolean): Promise<void> =>
  vi.waitFor(
    async () => {
      if (!(await holds())) throw new Error(`never happened: ${what}`);
    },
    { timeout: 30_000, interval: 5 },
  );

export const codeOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => "done",
    (error: unknown) => (error instanceof CellError ? error.code : String(error)),
  );
