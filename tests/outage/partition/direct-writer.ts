/**
 * A job of the application that writes to a cell's database past router and gate, as cron jobs do, and goes on
 * whatever becomes of the cell: whom nobody but the database's own guard can stop.
 *
 * What it was told is never an acknowledgement to a customer; what it was refused must never appear.
 */
import pg from "pg";
import type { Recorder } from "../../../history/recorder.ts";
import { systemClock } from "../../../runtime/clock.ts";

const pauseMs = 150;
const statementMs = 20_000;

export type DirectWriter = {
  readonly counts: () => { readonly done: number; readonly refused: number };
  readonly close: () => Promise<void>;
};

export function startDirectWriter(options: {
  readonly url: string;
  readonly tenants: readonly string[];
  readonly recorder: Recorder;
  readonly run: string;
}): DirectWriter {
  const over = new AbortController();
  const counts = { done: 0, refused: 0 };
  let number = 0;
  async function keepWriting(): Promise<void> {
    while (!over.signal.aborted) {
      number += 1;
      const tenant = options.tenants[number % options.tenants.length] ?? "";
      const value = `${options.run}/direct-${number}`;
      const recorded = options.recorder.invoke({ process: "direct", tenant, value });
      const end = await writeOnce(options.url, tenant, value);
      if (end.committed) counts.done += 1;
      else counts.refused += 1;
      if (end.committed || end.unknown) recorded.info(end.text);
      else recorded.fail(end.text);
      await systemClock.sleep(pauseMs, over.signal);
    }
  }
  const running = keepWriting();
  return {
    counts: () => counts,
    close: async () => {
      over.abort();
      await running;
    },
  };
}

type End = { readonly committed: boolean; readonly unknown: boolean; readonly text: string };

async function writeOnce(url: string, tenant: string, value: string): Promise<End> {
  const client = new pg.Client({ connectionString: url, query_timeout: statementMs });
  client.on("error", () => {}); // The statement under way has it too.
  try {
    await client.connect();
    await client.query("begin");
    await enterAndWrite(client, tenant, value);
    await client.query("commit");
    return { committed: true, unknown: false, text: "" };
  } catch (error) {
    // Only what the server itself says is certain.
    const certain = error instanceof pg.DatabaseError;
    return { committed: false, unknown: !certain, text: String(error) };
  } finally {
    void client.end().catch(() => {});
  }
}

/** Of tenants that have not moved since they were made. */
const epoch = 1;

/** As the application enters a key. A job has the epoch from when it began, and goes on with it. */
export async function enterAndWrite(
  client: pg.Client,
  tenant: string,
  value: string,
): Promise<void> {
  await client.query("select cellfleet.enter($1, $2)", [`default/tenant/${tenant}`, epoch]);
  await client.query("insert into orders (tenant_id, item, quantity) values ($1, $2, 1)", [
    tenant,
    value,
  ]);
}
