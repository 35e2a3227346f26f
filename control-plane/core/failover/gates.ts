/**
 * The gates between suspicion and a takeover. Each says pass or block, in one sentence with its numbers, and
 * whether a person may go past it; nothing goes past a gate in automatic mode.
 *
 * What must always be true: the gates that are planned with are those that are checked again under the
 * fleet's lock (store/failover/start.ts); a gate that cannot be overridden guards what would be unsafe, not
 * what would be unwise.
 */
import type { FailoverGate, failoverModes } from "../../../contract/failover-api.ts";
import type { CellView } from "../fleet.ts";
import { countsAsManual, whyManual } from "../lease-mode.ts";
import { confirmationsMin, isConfirmed, looksBad, type Verdict } from "./detect.ts";

export type FailoverMode = (typeof failoverModes)[number];

/** What one standby of the cell would take over. */
export type PartnerFacts = {
  readonly annex: string;
  readonly host: string;
  readonly buckets: { readonly lo: number; readonly hi: number };
  readonly state: string;
  readonly keys: number;
  /** Behind the origin when that was last known to live; null: not known. */
  readonly lagBytes: number | null;
  readonly lagSeconds: number | null;
  /** Why it cannot be adopted from; undefined: it can. */
  readonly unfit: string | undefined;
  /** What its host would hold with these keys. */
  readonly room: { readonly tenants: number; readonly bytes: number };
  readonly capacity: { readonly tenants: number; readonly bytes: number };
};

export type GateFacts = {
  readonly mode: FailoverMode;
  /** Nobody decides but this control plane. */
  readonly automatic: boolean;
  readonly cell: CellView;
  /** Whole cells that are not retired. */
  readonly cells: readonly CellView[];
  readonly fleetMode: { readonly name: "normal" | "recovering"; readonly reason: string };
  /** Of every whole cell, as judged a moment ago; empty: no control plane looks now. */
  readonly verdicts: readonly Verdict[];
  readonly partners: readonly PartnerFacts[];
  /** Keys that the cell owns, and those of them that no partner could take. */
  readonly keys: { readonly all: number; readonly unavailable: number };
  /** Failovers that are not over. */
  readonly open: ReadonlyArray<{
    readonly op: string;
    readonly cell: string;
    readonly step: string;
  }>;
  /** Since the last automatic failover in this region began; null: none. */
  readonly lastAutomaticMs: number | null;
  /** Cells that somebody stopped on purpose: who, and by which operation. */
  readonly intended: ReadonlyMap<string, string>;
  /** Another operation of the cell that a failover would cross. */
  readonly busy: string | undefined;
  /** An operator says that the cell is powered off. */
  readonly provedDead: boolean;
  /** Until the last lease that was granted is over, as recorded; of manual leases the longest that one may last. */
  readonly leaseLeftMs: number;
  /** Refusals of rules that others keep (safety rules, the fleet's lever). */
  readonly refusals: readonly FailoverGate[];
};

export const gateLimits = {
  /** One automatic failover per region within this time. */
  automaticEveryMs: 10 * 60_000,
  /** Above this share of cells that look bad at once, and this many, the observer is at fault. */
  badShare: 0.2,
  badMin: 2,
  lagBytesMax: 1024 * 1024,
  lagSecondsMax: 10,
  /** A takeover waits the last lease out; a longer one makes it useless. */
  leaseLeftMsMax: 60_000,
} as const;

/** Nobody goes past it by its name: `--proved-dead` is the word that opens it. */
export const powerOffGate = "power-off";

type Gate = (facts: GateFacts) => FailoverGate;

const pass = (name: string, text: string): FailoverGate => ({
  ...{ name, verdict: "pass", text, overridable: false },
});
const block = (name: string, text: string, overridable: boolean): FailoverGate => ({
  ...{ name, verdict: "block", text, overridable },
});

const normalFleet: Gate = ({ fleetMode }) =>
  fleetMode.name === "normal"
    ? pass("fleet", "the control plane knows all it knew")
    : block("fleet", `the fleet is recovering from a restore: ${fleetMode.reason}`, false);

const enforces: Gate = ({ cell }) =>
  cell.stage.now === "enforce" && cell.stage.applied === "enforce"
    ? pass("stage", "the cell's database refuses what it does not own")
    : block(
        "stage",
        `${cell.id} is in stage ${cell.stage.now} (its database: ${cell.stage.applied}): it would go on writing`,
        false,
      );

const alone: Gate = ({ cell, open, busy }) => {
  const own = open.find((one) => one.cell === cell.id);
  if (own !== undefined)
    return block("operation", `${own.op} fails it over already (${own.step})`, false);
  return busy === undefined
    ? pass("operation", "no other operation changes the cell")
    : block("operation", busy, false);
};

/** Later steps touch only what was adopted: the next failover need not wait for them. */
const settled: ReadonlySet<string> = new Set(["reprotecting", "evacuating"]);

const others: Gate = ({ cell, open }) => {
  const other = open.find((one) => one.cell !== cell.id && !settled.has(one.step));
  return other === undefined
    ? pass("one-at-a-time", "no other failover is under way")
    : block("one-at-a-time", `${other.op} of ${other.cell} is under way (${other.step})`, true);
};

const confirmed: Gate = ({ cell, verdicts }) => {
  const verdict = verdicts.find((one) => one.cell === cell.id);
  if (verdict === undefined) {
    return block(
      "witnesses",
      "no control plane has looked at it lately: nobody says that it is gone",
      true,
    );
  }
  if (isConfirmed(verdict.witnesses)) return pass("witnesses", verdict.text);
  const gone = verdict.witnesses.filter(({ says }) => says === "gone").length;
  return block(
    "witnesses",
    `${gone} of 3 kinds of witnesses say that it is gone, ${confirmationsMin} must and no partner may say otherwise: ${verdict.text}`,
    true,
  );
};

/** What was stopped on purpose looks gone, and says nothing about the eyes that see it. */
const observer: Gate = ({ cells, verdicts, intended }) => {
  const judged = cells.filter(({ id }) => verdicts.some((one) => one.cell === id));
  const bad = verdicts.filter((one) => looksBad(one) && !intended.has(one.cell));
  const share = judged.length === 0 ? 0 : bad.length / judged.length;
  const isTooMany = bad.length >= gateLimits.badMin && share > gateLimits.badShare;
  return isTooMany
    ? block(
        "observer",
        `${bad.length} of ${judged.length} cells look gone at once (${bad.map((one) => one.cell).join(", ")}): more likely the way from here to them is cut than that they died together`,
        true,
      )
    : pass("observer", `${bad.length} of ${judged.length} cells look gone`);
};

const seldom: Gate = ({ automatic, lastAutomaticMs, cell }) => {
  if (!automatic) return pass("rate", "a person decides");
  return lastAutomaticMs !== null && lastAutomaticMs < gateLimits.automaticEveryMs
    ? block(
        "rate",
        `the last automatic failover in region ${cell.region} began ${minutes(lastAutomaticMs)} ago; the next one by itself after ${minutes(gateLimits.automaticEveryMs)}`,
        true,
      )
    : pass(
        "rate",
        `no automatic failover in region ${cell.region} for ${minutes(gateLimits.automaticEveryMs)}`,
      );
};

const unintended: Gate = ({ automatic, intended: stopped, cell }) => {
  const intended = stopped.get(cell.id);
  if (intended === undefined) return pass("intent", "nobody stopped it on purpose");
  return automatic
    ? block("intent", `${intended}: nobody takes over by itself what was stopped on purpose`, true)
    : pass("intent", intended);
};

const lease: Gate = ({ leaseLeftMs }) =>
  leaseLeftMs <= gateLimits.leaseLeftMsMax
    ? pass("lease", `its last lease is over in ${seconds(leaseLeftMs)}`)
    : block(
        "lease",
        `its last lease lasts ${seconds(leaseLeftMs)} more, and a takeover must wait that out; the limit is ${seconds(gateLimits.leaseLeftMsMax)}`,
        false,
      );

/** Leases that the cell gives itself end when its machine does, and only somebody who was there knows. */
const poweredOff: Gate = ({ cell, automatic, provedDead }) => {
  if (!countsAsManual(cell.leaseMode)) return pass(powerOffGate, "its leases end by themselves");
  return provedDead && !automatic
    ? pass(powerOffGate, `somebody has seen that ${cell.id} is powered off`)
    : block(
        powerOffGate,
        `${cell.id} serves for as long as it runs (${whyManual(cell.leaseMode)}): somebody must have seen that it is powered off`,
        false,
      );
};

const standbys: Gate = ({ partners, keys, cell }) => {
  const fit = partners.filter(({ unfit }) => unfit === undefined);
  if (keys.all === 0) return pass("standby", `${cell.id} owns nothing`);
  if (fit.length === 0 || keys.unavailable === keys.all) {
    return block(
      "standby",
      `nobody holds a copy that may be adopted: a takeover would only declare ${keys.all} keys unavailable${unfitText(partners)}`,
      true,
    );
  }
  const rest =
    keys.unavailable === 0 ? "" : `; ${keys.unavailable} have none${unfitText(partners)}`;
  return pass(
    "standby",
    `${keys.all - keys.unavailable} of ${keys.all} keys have a copy in ${hostsOf(fit)}${rest}`,
  );
};

const unfitText = (partners: readonly PartnerFacts[]): string => {
  const unfit = partners.flatMap(({ annex, unfit: why }) =>
    why === undefined ? [] : [`${annex}: ${why}`],
  );
  return unfit.length === 0 ? "" : ` (${unfit.join("; ")})`;
};

const hasOf = (partners: readonly PartnerFacts[]): string =>
  partners.every(({ host }) => host === partners[0]?.host) ? "has" : "have";

const hostsOf = (partners: readonly PartnerFacts[]): string =>
  [...new Set(partners.map(({ host }) => host))].join(", ");

const lag: Gate = ({ partners }) => {
  const fit = partners.filter(({ unfit, keys }) => unfit === undefined && keys > 0);
  const behind = fit.filter(isBehind);
  const text = (one: PartnerFacts) => lagText(one, nameOf(one, fit));
  return behind.length === 0
    ? pass("lag", fit.length === 0 ? "nothing would be adopted" : fit.map(text).join(", "))
    : block(
        "lag",
        `${behind.map(text).join(", ")}: further behind than ${gateLimits.lagBytesMax} bytes or ${gateLimits.lagSecondsMax} s; what is missing there would be lost`,
        true,
      );
};

/** A host may keep two standbys of a cell, each of other buckets. */
type Named = Pick<PartnerFacts, "host" | "annex" | "buckets">;
const nameOf = ({ host, annex, buckets }: Named, all: readonly Named[]): string =>
  all.some((other) => other.host === host && other.annex !== annex)
    ? `${host} (buckets ${buckets.lo}-${buckets.hi})`
    : host;

/** Bytes may not be known of a dead origin; its heartbeats were seen until it died. */
const isBehind = ({ lagBytes, lagSeconds }: PartnerFacts): boolean =>
  (lagBytes ?? 0) > gateLimits.lagBytesMax ||
  (lagSeconds ?? Number.POSITIVE_INFINITY) > gateLimits.lagSecondsMax;

/** What is not known says why: whoever decides by it must know what there is to be found out. */
function lagText({ lagBytes, lagSeconds }: PartnerFacts, host: string): string {
  const size = lagBytes === null ? undefined : `${lagBytes} bytes`;
  if (lagSeconds === null) {
    const known = size === undefined ? "" : `was ${size} behind, and `;
    return `${host} ${known}cannot say by what time: no heartbeat has reached it yet`;
  }
  const time = seconds(lagSeconds * 1000);
  return size === undefined
    ? `${host} was ${time} behind (in bytes not known: nobody saw how far its log had come)`
    : `${host} was ${size} and ${time} behind`;
}

const headroom: Gate = ({ partners }) => {
  const taking = partners.filter(({ unfit, keys }) => unfit === undefined && keys > 0);
  const full = taking.filter(
    ({ room, capacity }) => room.tenants > capacity.tenants || room.bytes > capacity.bytes,
  );
  return full.length === 0
    ? pass(
        "headroom",
        taking.length === 0
          ? "nothing would be adopted"
          : `${hostsOf(taking)} ${hasOf(taking)} room`,
      )
    : block(
        "headroom",
        full
          .map(
            ({ room, capacity, ...one }) =>
              `${nameOf(one, full)} would hold ${room.tenants} of ${capacity.tenants} tenants and ${room.bytes} of ${capacity.bytes} bytes`,
          )
          .join("; "),
        true,
      );
};

const healthy: Gate = ({ cell }) =>
  cell.health === "healthy"
    ? pass("health", `${cell.id} is healthy: its tenants can leave live`)
    : block(
        "health",
        `${cell.id} is ${cell.health} (${cell.healthReason}): live moves want a healthy source`,
        false,
      );

const elsewhere: Gate = ({ cell, cells }) => {
  const open = cells.filter(
    (one) =>
      one.id !== cell.id && one.state === "active" && one.health === "healthy" && !one.dedicated,
  );
  const free = open.reduce(
    (sum, { capacity, usage }) => sum + Math.max(0, capacity.tenants - usage.tenants),
    0,
  );
  return free >= cell.usage.tenants && open.length > 0
    ? pass("room", `${open.length} other cells have room for ${cell.usage.tenants} tenants`)
    : block(
        "room",
        `${open.length} other open cells have room for ${free} of ${cell.usage.tenants} tenants`,
        true,
      );
};

const always = [normalFleet, enforces, alone, others];
const gatesOf: Readonly<Record<FailoverMode, readonly Gate[]>> = {
  unplanned: [
    ...always,
    confirmed,
    observer,
    seldom,
    unintended,
    poweredOff,
    lease,
    standbys,
    lag,
    headroom,
  ],
  planned: [...always, healthy, elsewhere],
};

export const checkGates = (facts: GateFacts): readonly FailoverGate[] => [
  ...gatesOf[facts.mode].map((gate) => gate(facts)),
  ...facts.refusals,
];

export type Past = { readonly override: readonly string[]; readonly allowDataLoss: boolean };

/** What stands against it after what somebody said; `--allow-data-loss` is the name of one gate. */
export function blockingGates(
  gates: readonly FailoverGate[],
  { override, allowDataLoss }: Past,
): readonly FailoverGate[] {
  const named = new Set([...override, ...(allowDataLoss ? ["lag"] : [])]);
  return gates.filter(
    ({ name, verdict, overridable }) => verdict === "block" && !(overridable && named.has(name)),
  );
}

/** Names that were said to go past, and are no gates that can be. */
export const unknownOverrides = (
  gates: readonly FailoverGate[],
  override: readonly string[],
): readonly string[] => override.filter((name) => !gates.some((gate) => gate.name === name));

const seconds = (ms: number): string => `${(Math.max(0, ms) / 1000).toFixed(1)} s`;
const minutes = (ms: number): string =>
  ms < 60_000 ? seconds(ms) : `${Math.floor(ms / 60_000)} min`;
