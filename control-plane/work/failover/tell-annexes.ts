/**
 * Annexes' databases are told by the executor itself that the takeover is open and which keys are theirs: their
 * agents hear of it as well, a few round trips later. Whoever cannot be told here and now is told by its agent
 * alone (docs/decisions/0063-a-takeover-waits-for-no-agent.md).
 *
 * What must always be true: nothing is told that is not recorded already; a key is active only after every
 * database of its annex was read back.
 */
import { epochSchema } from "../../../contract/ids.ts";
import { placementKeySchema } from "../../../contract/placement-key.ts";
import { activateGiven, type GivenKey } from "../../store/failover/adopt.ts";
import { annexesOf } from "../../store/failover/revoke.ts";
import { within } from "./adopters.ts";
import type { FailoverWorld, StepContext } from "./world.ts";

/** Those whose databases have recorded the open order. */
export async function openAtOnce(
  context: StepContext,
  annexes: readonly string[],
): Promise<readonly string[]> {
  const { world, run } = context;
  const { open } = world.standby;
  if (open === undefined) return [];
  const rows = (await annexesOf(world.database.read, run.cell)).filter(
    (row) => annexes.includes(row.annex) && row.orderFailover === run.id && row.orderOpen === true,
  );
  const told = await Promise.all(
    rows.map(async (row) => {
      const order = { failover: run.id, attempt: row.orderAttempt ?? 0, open: true };
      const proved = row.orderProved === true ? { proved: true } : {};
      const telling = world.pairOf(row).then((pair) => open(pair, { ...order, ...proved }));
      return (await within(context, limitOf(world), telling).catch(() => false)) ? [row.annex] : [];
    }),
  );
  return told.flat();
}

/** What reads back as the annex's is active from now on. */
export async function giveAtOnce(context: StepContext, given: readonly GivenKey[]): Promise<void> {
  const { world, run, term } = context;
  const { own } = world.standby;
  if (own === undefined || given.length === 0) return;
  const rows = await annexesOf(world.database.read, run.cell);
  const byAnnex = Map.groupBy(given, ({ annex }) => annex);
  const owned = await Promise.all(
    [...byAnnex].map(async ([annex, keys]) => {
      const row = rows.find((one) => one.annex === annex);
      if (row === undefined) return [];
      const changes = keys.map(({ key, epoch }) => ({
        ...{ key: placementKeySchema.parse(key), epoch: epochSchema.parse(epoch) },
        ...{ state: "active" as const, op: run.id, attempt: run.attempt },
      }));
      const telling = world.pairOf(row).then((pair) => own(pair, changes));
      const told = new Set(
        await within(context, limitOf(world), telling).catch((): string[] => []),
      );
      return keys.filter(({ key }) => told.has(key));
    }),
  );
  const all = owned.flat();
  if (all.length > 0) await activateGiven(world.database, { term, run }, all);
}

function limitOf({ clock, patience }: FailoverWorld) {
  const patienceMs = patience.ownMs;
  return { patienceMs, untilMs: clock.monotonicMs() + patienceMs };
}
