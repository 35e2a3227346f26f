/**
 * Tenants of a given size: made in a cell's database, moved while others are written to, and the same rows
 * copied plainly beside that, for comparison.
 */
import { pipeline } from "node:stream/promises";
import pg from "pg";
import { from as copyFrom, to as copyTo } from "pg-copy-streams";
import type { Move, MoveStep } from "../../contract/move-api.ts";
import { createRecorder } from "../../history/recorder.ts";
import { must } from "../../runtime/assert.ts";
import { systemClock } from "../../runtime/clock.ts";
import type { TestFleet } from "../../tests/fleet.ts";
import { until } from "../../tests/fleet.ts";
import { inDatabase, superuserUrls } from "../../tests/moves/cell-databases.ts";
import { openMoveClient } from "../../tests/moves/move-client.ts";
import { startOpenLoad } from "../../tests/moves/open-load.ts";
import { quantilesOf } from "../../tests/moves/quantiles.ts";
import type { SizedMove } from "./result.ts";

export type Size = { readonly name: string; readonly mebibytes: number };

/** Of a row of `orders` with its text of 200 characters, as COPY writes it. */
const rowBytes = 265;
const plainRounds = 2;
const quietMs = 3000;
const others = Array.from({ length: 10 }, (_one, index) => `bystander-${index + 1}`);
const othersPerSecond = 50;

export async function moveSizes(fleet: TestFleet, sizes: readonly Size[]): Promise<SizedMove[]> {
  const client = await openMoveClient(fleet);
  const databases = await superuserUrls(fleet);
  const [from, to] = [...databases.keys()];
  const source = must(from, "cell to move from");
  const target = must(to, "cell to move to");
  for (const [index, id] of others.entries()) {
    await client.createTenant(id, index % 2 === 0 ? source : target);
  }
  const results: SizedMove[] = [];
  try {
    for (const { name, mebibytes } of sizes) {
      const tenant = `sized-${mebibytes}`;
      await client.createTenant(tenant, source);
      await served(fleet, [tenant, ...others]);
      const rows = Math.round((mebibytes * 2 ** 20) / rowBytes);
      await inDatabase(urlOf(databases, source), (database) => fill(database, tenant, rows));
      const plainCopySeconds: number[] = [];
      for (let round = 0; round < plainRounds; round += 1) {
        plainCopySeconds.push(
          await plainCopy(tenant, urlOf(databases, source), urlOf(databases, target)),
        );
      }
      const load = startOpenLoad({
        router: new URL((await fleet.endpoints()).router).origin,
        streams: [{ tenants: others, perSecond: othersPerSecond }],
        recorder: createRecorder({ clock: systemClock, run: "sized", write: () => {} }),
        run: `sized-${mebibytes}`,
      });
      try {
        await systemClock.sleep(quietMs);
        const fromMs = systemClock.monotonicMs();
        const { id } = await client.start([tenant], target, { switch: "auto", soakMs: 0 });
        const move = await client.reaches(id, "done");
        const toMs = systemClock.monotonicMs();
        const took = (isIn: (sentMs: number) => boolean) =>
          quantilesOf(load.samples.filter((one) => isIn(one.sentMs)).map(({ tookMs }) => tookMs));
        results.push({
          ...{ name, rows, plainCopySeconds },
          bytes: move.progress.bytesCopied,
          seconds: {
            all: (toMs - fromMs) / 1000,
            served: secondsUntil(move, "reversing"),
            copy: secondsUntil(move, "catching-up") - secondsUntil(move, "copying"),
            verify: secondsUntil(move, "ready") - secondsUntil(move, "verifying"),
          },
          pauseMs: move.pause?.total ?? 0,
          others: {
            before: took((sentMs) => sentMs < fromMs),
            during: took((sentMs) => sentMs >= fromMs && sentMs < toMs),
          },
        });
      } finally {
        await load.close();
      }
    }
  } finally {
    await client.close();
  }
  return results;
}

const urlOf = (databases: ReadonlyMap<string, string>, cell: string): string =>
  must(databases.get(cell), `database of ${cell}`);

const served = (fleet: TestFleet, tenants: readonly string[]): Promise<void> =>
  until("all tenants are served", async () => {
    const answers = await Promise.all(tenants.map((tenant) => fleet.ask(tenant, "GET", "/orders")));
    return answers.every(({ status }) => status === 200);
  });

/** Past guard and triggers, as rows that were always there. */
async function fill(client: pg.Client, tenant: string, rows: number): Promise<void> {
  await client.query("set session_replication_role = replica");
  await client.query(
    `insert into orders (tenant_id, item, quantity, status)
     select $1, rpad('order ' || n, 200, 'x'), 1, 'confirmed' from generate_series(1, $2) n`,
    [tenant, rows],
  );
  await client.query("vacuum analyze orders");
  await client.query("checkpoint");
}

/** Into an empty table with the same columns and indexes and no guard, which is dropped again. */
async function plainCopy(tenant: string, sourceUrl: string, targetUrl: string): Promise<number> {
  return inDatabase(sourceUrl, (source) =>
    inDatabase(targetUrl, async (target) => {
      await target.query("create table public.bench_copy (like orders including all)");
      try {
        const startedMs = systemClock.monotonicMs();
        const literal = pg.escapeLiteral(tenant);
        const out = source.query(
          copyTo(
            `copy (select * from orders where tenant_id = ${literal}) to stdout (format binary)`,
          ),
        );
        await pipeline(out, target.query(copyFrom("copy bench_copy from stdin (format binary)")));
        return (systemClock.monotonicMs() - startedMs) / 1000;
      } finally {
        await target.query("drop table public.bench_copy");
      }
    }),
  );
}

/** From the request until it had come to this step. */
function secondsUntil({ steps, createdAt }: Move, step: MoveStep): number {
  const at = steps.find((one) => one.step === step)?.at ?? createdAt;
  return (Date.parse(at) - Date.parse(createdAt)) / 1000;
}
