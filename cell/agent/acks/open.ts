/** All that answers to writes may need, made once per agent: connections of their own, so that nobody's work is in the way. */
import pg from "pg";
import type { Clock } from "../../../runtime/clock.ts";
import type { Lifecycle } from "../../../runtime/lifecycle.ts";
import { errorFields } from "../../../runtime/log.ts";
import type { Counter } from "../../../runtime/metrics.ts";
import type { Random } from "../../../runtime/random.ts";
import type { AgentLog } from "../events.ts";
import type { Acks } from "./answer-head.ts";
import { CommitPositions } from "./commit-position.ts";
import { GoldGate } from "./gold-gate.ts";
import { StandbyWatch } from "./standby-watch.ts";

/** One for positions and marks, one for looks at slots and at what is stored. */
const connectionsMax = 2;
const queryMs = 3000;

export function openAcks(
  options: {
    readonly clock: Clock;
    readonly random: Random;
    readonly log: AgentLog;
    /** Of the first store. */
    readonly databaseUrl: string;
    readonly others: readonly { readonly name: string; readonly databaseUrl: string }[];
    readonly isPrimary: () => boolean;
    readonly counter: Counter;
    readonly goldMs: number;
  },
  lifecycle: Lifecycle,
): Acks & { readonly hear: StandbyWatch["hear"] } {
  const { clock, random, log, counter } = options;
  const first = { name: "", pool: openPool(options.databaseUrl) };
  const others = options.others.map(({ name, databaseUrl }) => ({
    name,
    pool: openPool(databaseUrl),
  }));
  const stores = [first, ...others];
  lifecycle.onClose("connections of answers", async () => {
    await Promise.all(stores.map(({ pool }) => pool.end()));
  });
  let said = "";
  const watch = new StandbyWatch({
    ...{ clock, random, pool: first.pool, mayWrite: options.isPrimary },
    onTrouble: (error) => {
      const fields = errorFields(error);
      const text = String(fields["error"]);
      if (said !== text) log.event("standbys.unread", fields, "warn");
      said = text;
    },
  });
  lifecycle.onClose("standby needs", () => watch.close());
  return {
    watch,
    positions: new CommitPositions(clock, stores),
    gold: new GoldGate({ clock, log, stores, watch, counter, waitMsMax: options.goldMs }),
    hear: (answer) => watch.hear(answer),
  };
}

function openPool(connectionString: string): pg.Pool {
  const pool = new pg.Pool({
    ...{ connectionString, max: connectionsMax },
    connectionTimeoutMillis: 2000,
    // They are kept: the first write after a silence would go without its position.
    idleTimeoutMillis: 0,
    statement_timeout: queryMs,
    query_timeout: queryMs,
    application_name: "cellfleet-agent answers",
  });
  // The next reading says what is wrong.
  pool.on("error", () => {});
  return pool;
}
