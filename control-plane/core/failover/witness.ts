/**
 * What three independent kinds of witnesses say of one cell: this control plane itself, routers by what
 * came of their requests, and the partners that keep its standbys.
 *
 * What must always be true: a witness that has nothing to say, or has not been heard lately, says
 * `unknown`, never `gone`; all that is measured comes as ages, so that no two clocks are compared.
 */
import type { Witness, witnessClasses } from "../../../contract/failover-api.ts";

export type Says = Witness["says"];

/** What probing the gates of a cell came to. A cell answers when any of its gates does. */
export type ProbeTrack = {
  /** In a row. */
  readonly misses: number;
  /** Since the first of these was sent, in milliseconds; null without misses. */
  readonly missingForMs: number | null;
  /** Of the last miss. */
  readonly failure: string;
};

export type AgentSight = {
  /** Since one of its agents called last; null: none ever did. */
  readonly silentMs: number | null;
  /** By the word of that agent, as is what follows. */
  readonly appReachable: boolean;
  /** For how long it has said that the database is out of reach; null: it is in reach. */
  readonly databaseLostForMs: number | null;
  /** Until the last lease that was granted is over; negative: over for so long; null: none ever was. */
  readonly leaseLeftMs: number | null;
};

/** The newest report of one router that had requests for the cell. */
export type RouterSight = {
  readonly router: string;
  readonly ageMs: number;
  readonly requests: number;
  readonly failures: number;
};

export type PartnerSight = {
  readonly host: string;
  /** Since its agent called last; null: it never did. */
  readonly ageMs: number | null;
  readonly sees: "unknown" | "alive" | "silent";
};

export type CellSight = {
  readonly cell: string;
  /** For how long this control plane has looked at it without a break. */
  readonly watchedMs: number;
  readonly probes: ProbeTrack;
  readonly agent: AgentSight;
  readonly routers: readonly RouterSight[];
  readonly partners: readonly PartnerSight[];
};

export const witnessLimits = {
  /** Probes without an answer in a row, over this long at least: probes at once must not count as time. */
  missesMin: 3,
  missingMsMin: 1000,
  /** An agent that has called within this time is heard. It renews its lease every second. */
  agentFreshMs: 1500,
  /** Agents that a silent control plane lost find it again within this time: until then their silence is its own. */
  agentReturnMs: 3000,
  /** So long an agent must say that its database is gone: a restart of PostgreSQL takes less. */
  databaseLostMsMin: 1000,
  /** Older reports of routers say nothing about now. */
  routerFreshMs: 3000,
  routerFailuresMin: 2,
  /** At or above this share of failures a router takes the cell for gone. */
  routerShare: 0.5,
  /** A partner that was not heard for longer is silent itself. */
  partnerFreshMs: 3000,
} as const;

type ClassName = (typeof witnessClasses)[number];
const says = (name: ClassName, word: Says, text: string): Witness => ({
  class: name,
  says: word,
  text,
});

export const witnessesOf = (sight: CellSight): readonly Witness[] => [
  controlPlaneWitness(sight),
  routersWitness(sight.routers),
  partnersWitness(sight.partners),
];

/**
 * Its own eyes. A gate that is out of reach while the cell's agent calls, or the other way round, is a cut
 * between here and there and no death; an application that is down is none either.
 */
export function controlPlaneWitness(sight: CellSight): Witness {
  const { agent, probes } = sight;
  const { silentMs } = agent;
  if (silentMs === null) return own("unknown", "no agent of it has ever called");
  const isSilent =
    silentMs > witnessLimits.agentFreshMs || silentMs >= (probes.missingForMs ?? Infinity);
  if (!isSilent) return byTheAgent(agent, probes, silentMs);
  return probes.misses === 0 ? byTheGateAlone(sight, silentMs) : byItsSilence(sight, silentMs);
}

const own = (word: Says, text: string): Witness => says("control-plane", word, text);
const calledAgo = (silentMs: number): string => `its agent called ${seconds(silentMs)} ago`;

function byTheAgent(
  { databaseLostForMs: lost, appReachable }: AgentSight,
  probes: ProbeTrack,
  silentMs: number,
): Witness {
  const called = calledAgo(silentMs);
  if (lost !== null) {
    const text = `its agent says that its database has been out of reach for ${seconds(lost)}`;
    return own(lost >= witnessLimits.databaseLostMsMin ? "gone" : "unknown", text);
  }
  if (probes.misses > 0) {
    return own(
      "alive",
      `${called}, though its gate does not answer from here (${missesOf(probes)})`,
    );
  }
  return appReachable
    ? own("alive", `its gate answers, ${called}`)
    : own("alive", `its agent and database answer, its application does not; ${called}`);
}

/** In failsafe it may serve without ever calling here: an answer of its gate is all that is known. */
function byTheGateAlone({ agent, watchedMs }: CellSight, silentMs: number): Witness {
  const { leaseLeftMs } = agent;
  if (watchedMs < witnessLimits.agentReturnMs) {
    return own("unknown", `looked at for ${seconds(watchedMs)} only; nobody has called since`);
  }
  return leaseLeftMs !== null && leaseLeftMs < 0
    ? own(
        "unknown",
        `its gate answers, but its agent has been silent for ${seconds(silentMs)} and its lease is over: something in it hangs, or the way from there to here is cut`,
      )
    : own("alive", `its gate answers, ${calledAgo(silentMs)}`);
}

function byItsSilence({ probes, watchedMs }: CellSight, silentMs: number): Witness {
  const missing = probes.missingForMs ?? 0;
  const text = `${missesOf(probes)}, and its agent has been silent for ${seconds(silentMs)}`;
  if (watchedMs < witnessLimits.missingMsMin) {
    return own("unknown", `${text}; looked at for ${seconds(watchedMs)} only`);
  }
  const isLong = missing >= witnessLimits.missingMsMin;
  return own(probes.misses >= witnessLimits.missesMin && isLong ? "gone" : "unknown", text);
}

const missesOf = ({ misses, missingForMs, failure }: ProbeTrack): string =>
  `${misses} probes of its gates in a row missed within ${seconds(missingForMs ?? 0)} (${failure})`;

/** Requests of tenants. Routers that see different things may be cut off themselves: then nobody knows. */
export function routersWitness(routers: readonly RouterSight[]): Witness {
  const word = (one: Says, text: string) => says("routers", one, text);
  const fresh = routers.filter(
    ({ ageMs, requests }) => ageMs <= witnessLimits.routerFreshMs && requests > 0,
  );
  if (fresh.length === 0) return word("unknown", "no router has had requests for it lately");
  const words = fresh.map(routerSays);
  const requests = sum(fresh.map((one) => one.requests));
  const failures = sum(fresh.map((one) => one.failures));
  const counted = `${failures} of ${requests} requests failed at ${fresh.length} ${fresh.length === 1 ? "router" : "routers"}`;
  const gone = words.filter((one) => one === "gone").length;
  const alive = words.filter((one) => one === "alive").length;
  if (gone > 0 && alive > 0) {
    return word("unknown", `${counted}: ${gone} of them cannot reach it, ${alive} can`);
  }
  return word(gone > 0 ? "gone" : alive > 0 ? "alive" : "unknown", counted);
}

function routerSays({ requests, failures }: RouterSight): Says {
  if (failures / requests < witnessLimits.routerShare) return "alive";
  return failures >= witnessLimits.routerFailuresMin ? "gone" : "unknown";
}

/**
 * Those who hold its rows, and would take over. One that sees it alive is enough: `alive`. `gone` wants
 * half of all partners at least: a single one may be cut off from its origin.
 */
export function partnersWitness(partners: readonly PartnerSight[]): Witness {
  const word = (one: Says, text: string) => says("partners", one, text);
  if (partners.length === 0) return word("unknown", "it has no standby partners");
  const fresh = partners.filter(
    ({ ageMs }) => ageMs !== null && ageMs <= witnessLimits.partnerFreshMs,
  );
  const unheard = partners.length - fresh.length;
  const hosts = (what: PartnerSight["sees"]) =>
    fresh.filter(({ sees }) => sees === what).map(({ host }) => host);
  // A host may keep two standbys of it for a while.
  const alive = [...new Set(hosts("alive"))];
  const silents = hosts("silent");
  const silent = [...new Set(silents)];
  const rest = unheard === 0 ? "" : `; ${unheard} of ${partners.length} are silent themselves`;
  if (alive.length > 0) {
    const others =
      silent.length === 0 ? "" : `; ${silent.join(", ")} ${hears(silent)} nothing of it`;
    return word("alive", `${alive.join(", ")} ${hears(alive)} from it${others}${rest}`);
  }
  if (silent.length === 0) return word("unknown", `no partner can tell${rest}`);
  const enough = silents.length * 2 >= partners.length;
  return word(
    enough ? "gone" : "unknown",
    `${silent.join(", ")} ${hears(silent)} nothing of it${rest}`,
  );
}

const hears = (hosts: readonly string[]): string => (hosts.length === 1 ? "hears" : "hear");
const sum = (numbers: readonly number[]): number => numbers.reduce((total, one) => total + one, 0);
const seconds = (ms: number): string => `${(Math.max(0, ms) / 1000).toFixed(1)} s`;
