/**
 * The cron job: acts once per account and tick of CRON_EVERY_MS (default 100 ms), for every account
 * it can see. With cells it sees, in each cell, the accounts that live there; without, all of them.
 *
 * The tick's row is the act's record and, by its primary key, the reason why it happens once.
 */
import { openDatabase } from "./lib/database.js";
import { isRequeue } from "./lib/failure.js";
import { repeat, settings } from "./lib/process.js";

const { databaseUrl, place } = settings();
const database = openDatabase(databaseUrl, { max: 2 });
const everyMs = Number(process.env.CRON_EVERY_MS ?? 100);
/** After a pause only the latest ticks are made up for. */
const lateTicksMax = 600;
const keepMinutes = 30;
const troubledMs = 1000;
const tickNow = () => Math.floor(Date.now() / everyMs);

const act = `insert into ticks (account_id, tick, done_by)
  select id, $1, $2 from accounts where $3::text is null or id = $3
  on conflict do nothing`;

async function actAt(tick) {
  try {
    await database.query(act, [tick, place, null]);
  } catch (error) {
    if (!isRequeue(error)) throw error;
    // One of the accounts is leaving this database at this moment: the others are done one by one.
    const { rows } = await database.query("select id from accounts");
    for (const { id } of rows) {
      await database.query(act, [tick, place, id]).catch((refused) => {
        if (!isRequeue(refused)) throw refused; // Where the account is now, that tick is done.
      });
    }
  }
}

async function forgetOld() {
  await database.query(
    `delete from ticks where (account_id, tick) in (
       select account_id, tick from ticks
       where done_at < now() - make_interval(mins => $1) limit 10000)`,
    [keepMinutes],
  );
}

let next = tickNow();
let tidyAt = next;
await repeat(async () => {
  try {
    next = Math.max(next, tickNow() - lateTicksMax);
    while (next <= tickNow()) {
      await actAt(next);
      next += 1;
    }
    if (next > tidyAt) {
      await forgetOld();
      tidyAt = next + Math.ceil(10_000 / everyMs);
    }
    return next * everyMs - Date.now();
  } catch (error) {
    process.stderr.write(`cron: ${error.message}\n`);
    return troubledMs;
  }
}, database.close);
