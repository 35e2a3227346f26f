/**
 * Empties a cell that was failed over and lets it back: its data is destroyed by the provider and a new,
 * empty database takes its place under the same id.
 *
 * What must always be true: the lease stays refused until the old database is gone; nothing is destroyed
 * that still serves, hosts a standby that serves, or holds the only copy of something, unless somebody gave
 * that up by name.
 */
import { and, eq, inArray, sql } from "drizzle-orm";
import { CellError } from "../../../contract/errors.ts";
import type { ProvidedCell } from "../../../contract/provider-api.ts";
import type { Tx } from "../../store/database.ts";
import { recordEvents } from "../../store/events.ts";
import { recordProvided } from "../../store/provided.ts";
import { changeRouting } from "../../store/routing-change.ts";
import { agent, cell } from "../../store/schema.ts";
import { mintAgentToken } from "../provider.ts";
import type { SalvageWorld } from "./salvage-world.ts";

const lookEveryMs = 300;

/** Throws PROVIDER_FAILED. Undefined: another process leads. */
export async function destroyAndCreate(
  world: SalvageWorld,
  about: {
    readonly op: string;
    readonly cell: string;
    readonly term: number;
    readonly isDestroyed: boolean;
  },
  onDestroyed: () => Promise<void>,
  signal: AbortSignal,
): Promise<ProvidedCell | undefined> {
  const { provider, database, random, clock } = world;
  const { op, cell: id, term } = about;
  if (!about.isDestroyed) {
    await settled(world, id, await provider.act(id, "destroy", { op }, signal), "absent", signal);
    await onDestroyed();
  }
  const who = { term, nowMs: clock.nowMs() };
  const agentToken = await mintAgentToken(database, random, who, { cell: id, op });
  if (agentToken === undefined) return undefined;
  const answer = await provider.act(id, "create", { op, agentToken }, signal);
  const made = await settled(world, id, answer, "running", signal);
  await recordProvided(database, term, made);
  return made;
}

async function settled(
  { provider, clock }: SalvageWorld,
  id: string,
  first: ProvidedCell,
  wanted: ProvidedCell["state"],
  signal: AbortSignal,
): Promise<ProvidedCell> {
  let answer = first;
  while (answer.state === "creating" && wanted !== "absent") {
    signal.throwIfAborted();
    await clock.sleep(lookEveryMs, signal);
    answer = await provider.look(id, signal);
  }
  if (answer.state === wanted) return answer;
  throw new CellError(
    "PROVIDER_FAILED",
    `The provider reports ${id} as ${answer.state}: ${answer.text}`,
    {
      nextSteps: [`cellctl cell get ${id}`],
    },
  );
}

/** Nothing of the old database may hold a lease any more: its agents are forgotten, its grants void. */
export async function letBack(tx: Tx, id: string): Promise<void> {
  await changeRouting(tx, { config: true });
  await tx.delete(agent).where(eq(agent.cell, id));
  await tx
    .update(cell)
    .set({
      ...{ state: "active", goal: "active", revoking: false, halted: false },
      ...{ systemIdentifier: "", timeline: 0, boot: "", bootInstance: "", grantSeen: 0 },
      ...{ appliedRevision: 0, partnerAcked: 0, healthReason: "wiped; its new database starts" },
    })
    .where(and(eq(cell.id, id), inArray(cell.state, ["quarantined", "cordoned"])));
  // What an earlier life of this database was told to let go of, the new one never had.
  await tx.execute(sql`delete from cellfleet_control.disowned where cell = ${id}`);
  const text = `${id} is wiped and back, empty; its tenants may come home.`;
  await recordEvents(tx, [{ kind: "cell.wiped", object: id, text }]);
}

const openWithinMs = 60_000;

/**
 * Its new agent has reported, and it is healthy: what was known of its health before may be of the old one.
 * False: not after a minute.
 */
export async function servesWithin(
  { database, clock }: Pick<SalvageWorld, "database" | "clock">,
  id: string,
  signal: AbortSignal,
): Promise<boolean> {
  const deadlineMs = clock.monotonicMs() + openWithinMs;
  while (clock.monotonicMs() < deadlineMs && !signal.aborted) {
    const [row] = await database.read
      .select({ health: cell.health })
      .from(cell)
      .innerJoin(agent, and(eq(agent.cell, cell.id), eq(agent.primary, true)))
      .where(eq(cell.id, id));
    if (row?.health === "healthy") return true;
    await clock.sleep(lookEveryMs, signal);
  }
  signal.throwIfAborted();
  return false;
}
