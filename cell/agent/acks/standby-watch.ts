/**
 * What this cell's standbys ask of its answers: whether there are any, which partner keeps which buckets,
 * which keys are gold. Told by the control plane's answers, and read from the cell's own database, so that
 * an agent that starts while the control plane is away knows it, and one that is not primary.
 *
 * What must always be true: what is known is never forgotten because a reading failed.
 */
import type pg from "pg";
import { z } from "zod";
import {
  type AgentSyncResponse,
  agentSyncResponseSchema,
} from "../../../contract/cell-protocol.ts";
import { bucketOf, parsePlacementKey } from "../../../contract/placement-key.ts";
import { type Partner, partnerSchema } from "../../../contract/standby-api.ts";
import type { Clock } from "../../../runtime/clock.ts";
import { type Loop, startLoop } from "../../../runtime/loop.ts";
import type { Random } from "../../../runtime/random.ts";

const everyMs = 1000;
const backoffMaxMs = 5000;

const strategies = ["directory", "range", "slots"] as const;
const goldSchema = agentSyncResponseSchema.shape.gold.unwrap();
export type Gold = z.infer<typeof goldSchema>;
const needsSchema = z.object({
  needs: z.object({
    partners: z.array(partnerSchema),
    keyspaces: z.array(
      z.object({
        name: z.string(),
        strategy: z.enum(strategies),
        slotCount: z.number().nullable(),
      }),
    ),
    digest: z.string().nullable(),
    gold: goldSchema.nullable(),
  }),
});
type Needs = z.infer<typeof needsSchema>["needs"];

export class StandbyWatch {
  readonly #pool: pg.Pool;
  readonly #loop: Loop;
  readonly #mayWrite: () => boolean;
  readonly #onTrouble: (error: unknown) => void;
  #partners: readonly Partner[] = [];
  #keyspaces: Needs["keyspaces"] = [];
  #digest: string | null = null;
  #gold: Gold = { keys: [], onPartnerLoss: "refuse" };
  #goldKeys: ReadonlySet<string> = new Set();
  /** Told by the control plane, and not in the database yet. */
  #untold: Gold | undefined;

  constructor(options: {
    readonly clock: Clock;
    readonly random: Random;
    /** Of the first store. */
    readonly pool: pg.Pool;
    /** Does this agent speak for the cell? */
    readonly mayWrite: () => boolean;
    readonly onTrouble: (error: unknown) => void;
  }) {
    this.#pool = options.pool;
    this.#mayWrite = options.mayWrite;
    this.#onTrouble = options.onTrouble;
    this.#loop = startLoop({
      ...{ clock: options.clock, random: options.random },
      intervalMs: everyMs,
      backoffMaxMs,
      turn: async () => {
        await this.#turn();
        return "idle";
      },
      onError: (error) => this.#onTrouble(error),
    });
  }

  /** There is somebody who might take this cell's keys over. */
  get hasPartners(): boolean {
    return this.#partners.length > 0;
  }
  get onPartnerLoss(): Gold["onPartnerLoss"] {
    return this.#gold.onPartnerLoss;
  }
  isGold(key: string): boolean {
    return this.#goldKeys.has(key);
  }

  /** The annex that keeps the rows of this key; undefined: nobody does, as far as is known. */
  annexOf(key: string): string | undefined {
    const parts = parsePlacementKey(key);
    const keyspace = this.#keyspaces.find(({ name }) => name === parts?.keyspace);
    if (parts === undefined || keyspace === undefined) return undefined;
    const { strategy, slotCount } = keyspace;
    const bucket = bucketOf(parts, { strategy, slotCount: slotCount ?? undefined });
    return this.#partners.find(({ lo, hi }) => lo <= bucket && bucket <= hi)?.annex;
  }

  /** Of each answer of the control plane. */
  hear({ gold, partners }: Pick<AgentSyncResponse, "gold" | "partners">): void {
    if (gold !== undefined) {
      this.#take(gold);
      this.#untold = gold;
    }
    // The database has them once they are stored; until then nobody is adopted from by them.
    if (gold !== undefined || partners !== undefined) this.#loop.wake();
  }

  close(): Promise<void> {
    return this.#loop.close();
  }

  async #turn(): Promise<void> {
    const untold = this.#untold;
    if (untold !== undefined && this.#mayWrite()) {
      await this.#pool.query("select cellfleet.take_gold($1::jsonb, $2)", [
        JSON.stringify(untold.keys),
        untold.onPartnerLoss,
      ]);
      if (this.#untold === untold) this.#untold = undefined;
    }
    const { rows } = await this.#pool.query("select cellfleet.standby_needs($1) as needs", [
      this.#digest,
    ]);
    const { needs } = needsSchema.parse(rows[0]);
    this.#partners = needs.partners;
    this.#keyspaces = needs.keyspaces;
    this.#digest = needs.digest;
    // What the control plane has told since is newer than what is stored.
    if (needs.gold !== null && this.#untold === undefined) this.#take(needs.gold);
  }

  #take(gold: Gold): void {
    this.#gold = gold;
    this.#goldKeys = new Set(gold.keys);
  }
}
