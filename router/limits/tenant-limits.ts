/**
 * What one tenant may take of this router: requests under way, tunnels, and requests per second (a bucket
 * of tokens). So one tenant cannot use up a cell or the router.
 *
 * Only tenants that the table knows come here, and only those with something under way, a bucket that is
 * not full, or a recent request are kept in memory. Constant time, and no allocation for a tenant that is
 * known and not limited. Limits of the table's policy and the router's own ceilings hold both.
 */
import type { KeyspaceName, TenantId } from "../../contract/ids.ts";
import type { TenantLimit, TrafficPolicy } from "../../contract/traffic-policy.ts";
import { shareOfLimit } from "../workers/share.ts";

export const tenantLimitReasons = ["in-flight", "rate"] as const;
export type TenantLimitReason = (typeof tenantLimitReasons)[number];

type Ceiling = { readonly whole: number; readonly share: number };

/** With more than so many under way, a tenant gets no reserved seat and waits behind others. */
export const greedyFrom = 16;
/** Tenants without anything under way that are remembered all the same. */
const idleKept = 10_000;

type Rule = {
  readonly inFlightMax: number;
  readonly perMs: number;
  readonly burst: number;
  /** As the policy says it, for all workers together: what who is refused is told. */
  readonly whole: TenantLimit;
};
const noRule: Rule = { inFlightMax: Infinity, perMs: Infinity, burst: Infinity, whole: {} };

export type TenantShare = {
  inFlight: number;
  tunnels: number;
  tokens: number;
  atMs: number;
  rule: Rule;
  generation: number;
};
export type TenantRefusal = {
  readonly reason: TenantLimitReason;
  /** Of the whole router. */
  readonly limit: number;
  /** Until the bucket has a token again; undefined where that depends on requests that end. */
  readonly waitMs: number | undefined;
};

export class TenantLimits {
  readonly #monotonicMs: () => number;
  readonly #ceiling: Ceiling;
  readonly #workers: number;
  readonly #shares = new Map<KeyspaceName, Map<TenantId, TenantShare>>();
  #size = 0;
  #sweepAt = idleKept;
  #policy: TrafficPolicy["tenantLimits"];
  #default: Rule = noRule;
  #rules: ReadonlyMap<string, ReadonlyMap<string, Rule>> = new Map();
  #generation = 0;

  /**
   * `inFlightMax`: ceiling of requests under way, not of tunnels, which cost little; 0: none.
   * Both it and the policy speak of a whole router: of it, one in `workers` parts is used here.
   */
  constructor(monotonicMs: () => number, inFlightMax: number, workers: number = 1) {
    this.#workers = workers;
    this.#monotonicMs = monotonicMs;
    const whole = inFlightMax === 0 ? Infinity : inFlightMax;
    this.#ceiling = { whole, share: Math.ceil(whole / workers) };
  }

  /** Among so many the limits are divided. */
  get workers(): number {
    return this.#workers;
  }

  /** Tenants in memory. */
  get size(): number {
    return this.#size;
  }

  /** After each change of the table. */
  follow(policy: TrafficPolicy | undefined): void {
    const limits = policy?.tenantLimits;
    if (limits === this.#policy) return;
    this.#policy = limits;
    this.#default = ruleOf(limits?.default, this.#workers);
    this.#rules = rulesByKeyspace(limits?.tenants ?? {}, this.#workers);
    this.#generation += 1;
  }

  /** Counts a request, or says why not. What was counted is given back with `leave`, exactly once. */
  enter(keyspace: KeyspaceName, tenant: TenantId): TenantShare | TenantRefusal {
    const share = this.#share(keyspace, tenant);
    const { rule } = share;
    if (share.inFlight >= this.#ceiling.share) return tooMany(this.#ceiling.whole);
    if (share.inFlight + share.tunnels >= rule.inFlightMax)
      return tooMany(rule.whole.inFlightMax ?? rule.inFlightMax);
    const waitMs = this.#takeToken(share);
    if (waitMs > 0) return tooFast(rule, waitMs);
    share.inFlight += 1;
    return share;
  }

  leave(share: TenantShare): void {
    share.inFlight -= 1;
  }

  /** A tunnel is a request under way as the policy counts them. */
  enterTunnel(keyspace: KeyspaceName, tenant: TenantId): TenantShare | TenantRefusal {
    const share = this.#share(keyspace, tenant);
    const { rule } = share;
    if (share.inFlight + share.tunnels >= rule.inFlightMax)
      return tooMany(rule.whole.inFlightMax ?? rule.inFlightMax);
    const waitMs = this.#takeToken(share);
    if (waitMs > 0) return tooFast(rule, waitMs);
    share.tunnels += 1;
    return share;
  }

  leaveTunnel(share: TenantShare): void {
    share.tunnels -= 1;
  }

  #share(keyspace: KeyspaceName, tenant: TenantId): TenantShare {
    const known = this.#shares.get(keyspace)?.get(tenant);
    if (known === undefined) return this.#add(keyspace, tenant);
    if (known.generation !== this.#generation) this.#renew(known, keyspace, tenant);
    return known;
  }

  #add(keyspace: KeyspaceName, tenant: TenantId): TenantShare {
    if (this.#size >= this.#sweepAt) this.#sweep();
    const rule = this.#ruleFor(keyspace, tenant);
    const share: TenantShare = {
      ...{ inFlight: 0, tunnels: 0, tokens: rule.burst, atMs: this.#monotonicMs() },
      ...{ rule, generation: this.#generation },
    };
    const tenants = this.#shares.get(keyspace) ?? new Map<TenantId, TenantShare>();
    this.#shares.set(keyspace, tenants);
    tenants.set(tenant, share);
    this.#size += 1;
    return share;
  }

  /** A changed policy holds at once; who was not limited starts with a full bucket. */
  #renew(share: TenantShare, keyspace: KeyspaceName, tenant: TenantId): void {
    this.#fill(share);
    share.rule = this.#ruleFor(keyspace, tenant);
    share.tokens = Math.min(share.tokens, share.rule.burst);
    share.generation = this.#generation;
  }

  #ruleFor(keyspace: KeyspaceName, tenant: TenantId): Rule {
    return this.#rules.get(keyspace)?.get(tenant) ?? this.#default;
  }

  /** 0: taken. Otherwise the time until there is one. */
  #takeToken(share: TenantShare): number {
    const { perMs } = share.rule;
    if (perMs === Infinity) return 0;
    this.#fill(share);
    if (share.tokens < 1) return (1 - share.tokens) / perMs;
    share.tokens -= 1;
    return 0;
  }

  #fill(share: TenantShare): void {
    const { perMs, burst } = share.rule;
    const nowMs = this.#monotonicMs();
    share.tokens = perMs === Infinity ? burst : filled(share, nowMs);
    share.atMs = nowMs;
  }

  /** Now and then, when as many again have come: each tenant costs a constant share of it. */
  #sweep(): void {
    const nowMs = this.#monotonicMs();
    for (const tenants of this.#shares.values()) {
      for (const [tenant, share] of tenants) {
        const isIdle = share.inFlight === 0 && share.tunnels === 0;
        if (!isIdle || filled(share, nowMs) < share.rule.burst) continue;
        tenants.delete(tenant);
        this.#size -= 1;
      }
    }
    this.#sweepAt = Math.max(idleKept, this.#size * 2);
  }
}

const tooMany = (limit: number): TenantRefusal => ({
  reason: "in-flight",
  limit,
  waitMs: undefined,
});

const tooFast = ({ whole, perMs }: Rule, waitMs: number): TenantRefusal => ({
  reason: "rate",
  limit: whole.perSecond ?? perMs * 1000,
  waitMs,
});

const filled = ({ tokens, atMs, rule: { perMs, burst } }: TenantShare, nowMs: number): number =>
  burst === Infinity ? Infinity : Math.min(burst, tokens + (nowMs - atMs) * perMs);

function ruleOf(whole: TenantLimit | undefined, workers: number): Rule {
  if (whole === undefined) return noRule;
  const { inFlightMax = Infinity, perSecond, burst } = shareOfLimit(whole, workers);
  if (perSecond === undefined) return { ...noRule, inFlightMax, whole };
  return {
    ...{ inFlightMax, whole },
    perMs: perSecond / 1000,
    burst: burst ?? Math.max(1, Math.ceil(perSecond)),
  };
}

/** `acme` of the default keyspace, or `KEYSPACE/acme`. */
function rulesByKeyspace(tenants: Readonly<Record<string, TenantLimit>>, workers: number) {
  const rules = new Map<string, Map<string, Rule>>();
  for (const [name, limit] of Object.entries(tenants)) {
    const at = name.indexOf("/");
    const keyspace = at < 0 ? "default" : name.slice(0, at);
    const inside = rules.get(keyspace) ?? new Map<string, Rule>();
    inside.set(name.slice(at + 1), ruleOf(limit, workers));
    rules.set(keyspace, inside);
  }
  return rules;
}
