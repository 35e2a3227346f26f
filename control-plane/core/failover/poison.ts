/**
 * Did the symptom follow tenants to their new cell? An adopter that was well before a wave and is not
 * after it may have been brought down by one of the keys it was just given. Then nothing more is adopted,
 * and the keys that may have done it are named (core/failover/suspects.ts).
 *
 * What must always be true: a key that was adopted after the symptom was seen is never blamed, and a
 * symptom that was there before the first key came is nobody's fault.
 */
import type { AdopterLook } from "./phases.ts";
import { type AnnexMarks, narrow, type Suspect } from "./suspects.ts";

export type Sign = {
  readonly annex: string;
  readonly text: string;
  /**
   * `process`: what serves requests ended or answers nobody, so whoever did it had one open. `server`: the
   * database went, and an application that stays answers requests with failures.
   */
  readonly of: "process" | "server";
};

export type PoisonLimits = {
  /** An agent that has not called for this long is out of reach. */
  readonly silentMs: number;
  /** Routers see this share of requests fail. */
  readonly errorShare: number;
  /** So long before the last good look a wave may have come and its effect not have shown. */
  readonly incubationMs: number;
};
export const poisonLimits: PoisonLimits = {
  silentMs: 6500,
  errorShare: 0.5,
  incubationMs: 3000,
};

/** What is wrong with an adopter now and was not when it was looked at first. */
export function signsOf(
  before: AdopterLook,
  now: AdopterLook,
  limits: PoisonLimits = poisonLimits,
): readonly Sign[] {
  const { annex } = now;
  const found: Omit<Sign, "annex">[] = [];
  const see = (of: Sign["of"], text: string) => found.push({ of, text });
  if (isNew(before.boot, now.boot)) see("server", "its database was started again");
  else if (isNew(before.hostBoot, now.hostBoot))
    see("server", "its host's database was started again");
  if (isNew(before.instance, now.instance)) see("process", "its agent was started again");
  if (before.silentMs <= limits.silentMs && now.silentMs > limits.silentMs) {
    see("process", `its agent has not called for ${Math.round(now.silentMs / 1000)} s`);
  }
  if (before.databaseReachable && !now.databaseReachable) {
    see("server", "its agent cannot reach the database");
  }
  if (before.appReachable && !now.appReachable) {
    see("process", "its agent cannot reach the application");
  }
  if (before.hostHealth === "healthy" && isBad(now.hostHealth)) {
    see("server", `its host became ${now.hostHealth}`);
  }
  const share = now.errorShare ?? 0;
  if (share >= limits.errorShare && (before.errorShare ?? 0) < limits.errorShare) {
    see("process", `${Math.round(share * 100)} % of its requests fail`);
  }
  return found.map((one) => ({ annex, ...one }));
}

/** What was not known before cannot have changed. */
const isNew = (before: string, now: string): boolean =>
  before !== "" && now !== "" && before !== now;
const isBad = (health: string): boolean => health === "suspect" || health === "down";

export type AdoptedKey = {
  readonly key: string;
  readonly annex: string;
  readonly wave: number;
  readonly atMs: number;
};

export type Poisoning = {
  readonly signs: readonly Sign[];
  readonly suspects: readonly Suspect[];
  /** They came as the suspects did, and nothing or less speaks against them: they are served on. */
  readonly spared: number;
};

/**
 * The keys that came last before the symptom: between the last look that was good, less the time that a
 * symptom takes to show, and the look that was not; narrowed by what routers saw of their requests.
 */
export function blame(
  facts: {
    readonly signs: readonly Sign[];
    readonly lastGoodMs: number;
    readonly seenMs: number;
    readonly adopted: readonly AdoptedKey[];
    /** By annex. */
    readonly marks?: ReadonlyMap<string, AnnexMarks>;
  },
  limits: Pick<PoisonLimits, "incubationMs"> = poisonLimits,
): Poisoning | undefined {
  const { signs, seenMs, lastGoodMs } = facts;
  const suspects: Suspect[] = [];
  let spared = 0;
  const counted: Sign[] = [];
  for (const [annex, own] of Map.groupBy(signs, (sign) => sign.annex)) {
    const before = facts.adopted.filter((one) => one.annex === annex && one.atMs <= seenMs);
    if (before.length === 0) continue;
    counted.push(...own);
    const recent = before.filter(({ atMs }) => atMs >= lastGoodMs - limits.incubationMs);
    const last = Math.max(...before.map(({ wave }) => wave));
    const candidates = recent.length > 0 ? recent : before.filter(({ wave }) => wave === last);
    const serverWent = own.some(({ of }) => of === "server");
    const keys = candidates.map(({ key }) => key);
    const narrowed = narrow(keys, facts.marks?.get(annex), serverWent);
    suspects.push(...narrowed);
    spared += candidates.length - narrowed.length;
  }
  return counted.length === 0
    ? undefined
    : { signs: counted, suspects: suspects.sort(byKey), spared };
}

const namedMax = 10;

export function poisonText(id: string, { signs, suspects, spared }: Poisoning): string {
  const what = signs.map(({ annex, text }) => `${annex}: ${text}`).join("; ");
  const named = suspects.slice(0, namedMax).map(suspectText).join(", ");
  const more = suspects.length > namedMax ? ` and ${suspects.length - namedMax} more` : "";
  const others = spared === 0 ? "" : ` ${spared} that came with them are served on.`;
  return `The symptom followed tenants to their new cell (${what}). Nothing more is adopted. Quarantined: ${named}${more}.${others} To go on with the others: cellctl failover resume ${id}`;
}

const suspectText = ({ key, because }: Suspect): string =>
  because === "" ? key : `${key} (${because})`;

const byKey = (a: Suspect, b: Suspect): number => Number(a.key > b.key) - Number(a.key < b.key);
