/**
 * The gates that moves have closed, as one store's database says it, and the answers that moves wait for.
 *
 * Always true: a gate is closed before its closing is answered, and "none in flight" is said only of keys
 * that nothing enters any more; it opens when its line is gone, and not before ownership was read behind
 * that. Of a database that is out of sight nothing is assumed: what is closed stays closed.
 */
import type { Queryable } from "../store/queryable.ts";
import type { Gate } from "./gate.ts";

export const gateOrderChannel = "cellfleet_gate_order";

type Line = { readonly key: string; readonly op: string; readonly attempt: number };
/** Of one move. */
type Order = {
  readonly op: string;
  readonly attempt: number;
  readonly keys: readonly string[];
  /** How many in flight were answered last; undefined: nothing yet. */
  told: number | undefined;
};

export type GateOrders = {
  /** On a new session: from here on moves wait for this agent. It has to read before it serves. */
  readonly begin: (client: Queryable) => Promise<void>;
  /** Closes what is to be closed, and answers. The result opens the rest: to be called when ownership was read. */
  readonly read: (client: Queryable) => Promise<() => void>;
};

/** `store` tells stores of a cell apart: a gate is open when none of them has it closed. */
export function createGateOrders(gate: Gate, instance: string, store: string): GateOrders {
  let closed: ReadonlySet<string> = new Set();
  let orders: ReadonlyMap<string, Order> = new Map();

  async function tell(client: Queryable, order: Order): Promise<void> {
    const inFlight = order.keys.reduce((sum, key) => sum + gate.drainingOf(key), 0);
    if (inFlight === order.told) return;
    order.told = inFlight;
    await client.query("select cellfleet.answer_gate($1, $2, $3, $4)", [
      ...[instance, order.op, order.attempt, inFlight],
    ]);
  }

  function close(client: Queryable, order: Order): void {
    const drained = Promise.all(order.keys.map((key) => gate.close(key, store)));
    void drained
      .then((ends) => {
        const stands = orders.get(order.op) === order && !ends.includes("reopened");
        return stands ? tell(client, order) : undefined;
      })
      .catch(() => {}); // The session is lost; the next one answers anew.
  }

  return {
    begin: async (client) => {
      // What was answered before may be gone with the database.
      orders = new Map();
      await client.query("select cellfleet.be_present($1)", [instance]);
      await client.query(`listen ${gateOrderChannel}`);
    },
    read: async (client) => {
      const { rows } = await client.query<Line>(
        "select key, op, attempt from cellfleet.gate_in_force order by op, key",
      );
      const before = orders;
      orders = new Map(
        ordersOf(rows).map((order) => {
          const known = before.get(order.op);
          return [order.op, known !== undefined && isSame(known, order) ? known : order];
        }),
      );
      const left = [...closed].filter((key) => rows.every((line) => line.key !== key));
      closed = new Set([...closed, ...rows.map(({ key }) => key)]);
      for (const order of orders.values()) {
        if (before.get(order.op) !== order) close(client, order);
      }
      for (const order of orders.values()) await tell(client, order);
      return () => {
        closed = new Set([...closed].filter((key) => !left.includes(key)));
        for (const key of left) gate.open(key, store);
      };
    },
  };
}

function ordersOf(lines: readonly Line[]): Order[] {
  const byOp = Map.groupBy(lines, ({ op }) => op);
  return [...byOp].flatMap(([op, all]) => {
    const [first] = all;
    if (first === undefined) return [];
    // Keys of one move are closed in one statement.
    return [{ op, attempt: first.attempt, keys: all.map(({ key }) => key), told: undefined }];
  });
}

const isSame = (a: Order, b: Order): boolean =>
  a.attempt === b.attempt && a.keys.join(" ") === b.keys.join(" ");
