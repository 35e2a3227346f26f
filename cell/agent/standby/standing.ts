/**
 * The agent's part in standbys, put together: as the origin of some (heartbeats, the list of partners, the
 * failsafe) and as an annex (promises, takeovers, sight). The conversation with the control plane asks here
 * what to tell, and tells here what it heard.
 */
import type { AgentSyncRequest, AgentSyncResponse } from "../../../contract/cell-protocol.ts";
import type { CellId } from "../../../contract/ids.ts";
import type { PlacementKey } from "../../../contract/placement-key.ts";
import type { Clock } from "../../../runtime/clock.ts";
import type { Lifecycle } from "../../../runtime/lifecycle.ts";
import { errorFields } from "../../../runtime/log.ts";
import { startLoop } from "../../../runtime/loop.ts";
import type { Random } from "../../../runtime/random.ts";
import { beat, takePartners } from "../../store/standby.ts";
import type { AgentLog } from "../events.ts";
import type { Facts, Stores } from "../stores/stores.ts";
import { AnnexKeeper } from "./annex.ts";
import { Failsafe } from "./failsafe.ts";
import { followServer } from "./followed-server.ts";
import { LeaseModes, leaseModeOf } from "./lease-modes.ts";
import { createPromiseClient } from "./promise-client.ts";
import { createDoor, type Door } from "./promise-door.ts";
import { stoppedKeys } from "./stopped-keys.ts";

export type Standing = {
  /** `fresh`: the facts were read for this call. */
  readonly report: (
    facts: Facts,
    fresh: boolean,
  ) => Pick<AgentSyncRequest, "origin" | "annex" | "leaseMode">;
  readonly wantsLease: () => boolean;
  /** A lease of the control plane's is wanted now, whatever is left of the one that stands. */
  readonly wantsGrant: () => boolean;
  /** For the primary, before anything of the answer is obeyed: what is told next stands by then. */
  readonly hear: (answer: AgentSyncResponse) => Promise<void>;
  /** For the primary, afterwards. */
  readonly obeyed: (answer: AgentSyncResponse) => Promise<void>;
  /** The control plane answered with a refusal of the whole call. */
  readonly refused: () => Promise<void>;
  /** Undefined: no key is stopped. */
  readonly stopped: () => ((key: PlacementKey) => boolean) | undefined;
  readonly door: Door;
};

export type StandingOptions = {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: AgentLog;
  readonly cell: CellId;
  readonly instance: string;
  readonly stores: Stores;
  readonly onNews: () => void;
  /** Of the conversation with the control plane. */
  readonly silentMs: () => number;
  /** Of an annex whose rows are in a server that follows the origin's: where that is. */
  readonly standbyServer?: (() => Promise<string>) | undefined;
  /** Own certificate, for annexes that ask for one. */
  readonly tls: () => { readonly cert?: string; readonly key?: string };
};

/** Annexes take an origin for silent that was not heard for three of them. */
const beatMs = 500;
const reviewMs = 250;

export function openStanding(options: StandingOptions, lifecycle: Lifecycle): Standing {
  const { clock, random, log, cell, instance, stores, onNews, silentMs } = options;
  const client = createPromiseClient(clock, options.tls);
  lifecycle.onClose("promise client", client.close);
  const failsafe = new Failsafe({ clock, random, log, cell, instance, stores, client, silentMs });
  lifecycle.onClose("failsafe", () => failsafe.close());
  const modes = new LeaseModes(stores, log, onNews);
  const annex = startAnnexKeeper(options, lifecycle);
  lifecycle.onClose("heartbeat", startHeartbeat(options));
  let partnersTold = "";

  async function hearPartners({ partners }: AgentSyncResponse): Promise<void> {
    if (partners === undefined) return;
    const told = JSON.stringify(partners);
    if (told === partnersTold) return;
    const outcomes = await stores.inAll((pool) => takePartners(pool, partners));
    partnersTold = told;
    if (!outcomes.includes("set")) return;
    const { revision } = partners;
    log.event("partners.changed", { revision, partners: partners.partners.length });
    await stores.look();
    onNews();
  }

  let stoppedOf: { readonly facts: Facts; readonly keys: ReturnType<Standing["stopped"]> };
  return {
    report: (facts, fresh) => {
      const { each } = facts;
      const annexReport = annex.report(
        fresh ? each.flatMap(({ standby }) => standby.annex ?? []) : [],
      );
      const [first] = each;
      return {
        origin: {
          // Of several stores what all of them have.
          listRevision: Math.min(...each.map(({ standby }) => standby.listRevision ?? 0)),
          failsafeMs: failsafe.lastedMs(),
          controlGrant: Math.max(...each.map(({ standby }) => standby.controlGrant)),
          ...(first === undefined
            ? {}
            : { position: { grant: first.grant, lsn: first.standby.lsn } }),
        },
        leaseMode: leaseModeOf(facts),
        ...(annexReport === undefined ? {} : { annex: annexReport }),
      };
    },
    wantsGrant: () => modes.wantsGrant(),
    wantsLease: () => {
      const { importing = 0, active = 0, fenced = 0 } = stores.ownership.countByState();
      return annex.wantsLease(importing + active + fenced);
    },
    hear: async (answer) => {
      await annex.hear(answer.annex);
      await hearPartners(answer);
      await modes.hear(answer.leaseMode);
    },
    obeyed: async ({ lease, leaseRefused, leaseMode }) => {
      if (lease !== undefined) await failsafe.granted(lease.grant, lease.ttlMs);
      else if (leaseRefused !== undefined) await failsafe.refused();
      if (modes.wantsGrant()) await modes.hear(leaseMode);
    },
    refused: () => failsafe.refused(),
    stopped: () => {
      const facts = stores.facts();
      if (facts === undefined) return undefined;
      if (stoppedOf?.facts.each.some((one, at) => one !== facts.each[at]) ?? true) {
        stoppedOf = { facts, keys: stoppedKeys(facts.each.map(({ standby }) => standby)) };
      }
      return stoppedOf.keys;
    },
    door: createDoor({
      clock,
      knows: (token) => annex.knows(token),
      promise: (asked) => annex.answer(asked),
      serves: () => stores.connected() && stores.lease.remainingMs() > 0,
    }),
  };
}

function startAnnexKeeper(options: StandingOptions, lifecycle: Lifecycle): AnnexKeeper {
  const { clock, random, log, standbyServer } = options;
  const followed =
    standbyServer === undefined
      ? undefined
      : followServer({ clock, random, url: standbyServer, origin: () => annex.origin() });
  if (followed !== undefined) lifecycle.onClose("standby's server", followed.close);
  const annex: AnnexKeeper = new AnnexKeeper({ ...options, followed });
  const review = startLoop({
    ...{ clock, random, intervalMs: reviewMs, backoffMaxMs: reviewMs },
    turn: async () => {
      annex.review();
      return "idle";
    },
    onError: (error) => log.event("step.failed", { step: "annex", ...errorFields(error) }, "warn"),
  });
  lifecycle.onClose("annex", review.close);
  return annex;
}

/** Returns how to stop. An annex has no heart of its own: its host's cell beats. */
function startHeartbeat({ clock, random, cell, stores }: StandingOptions): () => Promise<void> {
  const loop = startLoop({
    ...{ clock, random, intervalMs: beatMs, backoffMaxMs: beatMs },
    turn: async () => {
      const isAnnex = stores.facts()?.each.some(({ standby }) => standby.annex !== null) ?? true;
      if (isAnnex || !stores.primary() || stores.lease.remainingMs() === 0) return "idle";
      await stores.inAll((pool) => beat(pool, cell));
      return "idle";
    },
    // A database that is out of reach is said by its session; and a missing beat is the message.
    onError: () => {},
  });
  return loop.close;
}
