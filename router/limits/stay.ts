/**
 * What a request takes of the router's limits while it is under way: its place in the router, its share of
 * what its tenant may take, its deadline. All of it is given back at once, at its end.
 */
import { CellError } from "../../contract/errors.ts";
import type { RawHeaders } from "../../contract/raw-headers.ts";
import type { Clock, Timer } from "../../runtime/clock.ts";
import type { Random } from "../../runtime/random.ts";
import type { RouterMetrics } from "../observe/metrics.ts";
import type { ChosenRoute, Placed, Subject } from "../place/decide.ts";
import { deadlineHeaders, leastDeadline, readClientDeadline } from "./deadline.ts";
import type { Overload } from "./overload.ts";
import {
  greedyFrom,
  type TenantLimits,
  type TenantRefusal,
  type TenantShare,
} from "./tenant-limits.ts";

export type LimitsContext = {
  readonly clock: Clock;
  readonly random: Random;
  readonly metrics: RouterMetrics;
  readonly tenants: TenantLimits;
  readonly overload: Overload;
  /** Of every request, from its head to its answer's head; 0: none. */
  readonly deadlineMs: number;
};

/** Why a signal is aborted when its deadline is over. */
export const deadlineOver = "deadline";

export class Stay {
  readonly #limits: LimitsContext;
  #entered: boolean = false;
  #share: TenantShare | undefined;
  #timer: Timer | undefined;
  #endMs: number | undefined;
  #grpc: boolean = false;
  #isClients: boolean = false;

  constructor(limits: LimitsContext) {
    this.#limits = limits;
  }

  /** Throws ROUTER_OVERLOADED: the least important requests first. */
  enterRouter({ priority }: Pick<ChosenRoute, "priority">): void {
    const { overload } = this.#limits;
    if (!overload.enter(priority)) throw shed(this.#limits, priority);
    this.#entered = true;
  }

  /**
   * Throws REQUEST_INVALID for a deadline that is none, DEADLINE_EXCEEDED for one of the client's own that was
   * over before the request came. `onOver` comes once, when it is over.
   */
  begin(
    { deadlineMs: routeMs }: Pick<ChosenRoute, "deadlineMs">,
    raw: RawHeaders,
    startedMs: number,
    onOver: () => void,
  ): void {
    const { clock, deadlineMs } = this.#limits;
    const asked = readClientDeadline(raw, clock.nowMs());
    if (asked.kind === "refused") throw new CellError("REQUEST_INVALID", asked.message);
    if (asked.leftMs === 0) throw overOnArrival();
    const wholeMs = leastDeadline(asked.leftMs, routeMs, deadlineMs);
    if (wholeMs === undefined) return;
    this.#isClients = wholeMs === asked.leftMs;
    this.#grpc = asked.grpc;
    this.#endMs = startedMs + wholeMs;
    const leftMs = this.leftMs() ?? 0;
    if (leftMs > 0) this.#timer = clock.after(leftMs, onOver);
    else onOver();
  }

  /** Throws TENANT_LIMITED. Only for tenants that the table knows: others would fill the memory. */
  enterTenant(subject: Subject, placed: Pick<Placed, "route">): void {
    if (subject.kind !== "tenant" || placed.route === undefined) return;
    const entered = this.#limits.tenants.enter(subject.keyspace, subject.tenant);
    if ("reason" in entered) throw limited(this.#limits, entered);
    this.#share = entered;
  }

  /** Its tenant has so much under way that others go first. */
  get greedy(): boolean {
    return this.#share !== undefined && this.#share.inFlight > greedyFrom;
  }

  /** Of all deadlines the client's own is the one that counts. */
  get isClients(): boolean {
    return this.#isClients;
  }

  get hasDeadline(): boolean {
    return this.#endMs !== undefined;
  }

  /** Undefined: there is no deadline. */
  leftMs(): number | undefined {
    return this.#endMs === undefined ? undefined : this.#endMs - this.#limits.clock.monotonicMs();
  }

  /** For the cell: what is left at this moment. */
  headers(): readonly string[] {
    const leftMs = this.leftMs();
    return leftMs === undefined
      ? []
      : deadlineHeaders(leftMs, this.#limits.clock.nowMs(), this.#grpc);
  }

  /** The answer's head is there, in time. */
  met(): void {
    this.#timer?.cancel();
  }

  leave(): void {
    const { overload, tenants } = this.#limits;
    this.#timer?.cancel();
    if (this.#entered) overload.leave();
    if (this.#share !== undefined) tenants.leave(this.#share);
    this.#entered = false;
    this.#share = undefined;
  }
}

/**
 * The same of a tunnel: its opening may be shed, it counts for its tenant while it is open, and it is no
 * request under way. Returns what gives it back.
 */
export function enterTunnel(limits: LimitsContext, subject: Subject, placed: Placed): () => void {
  const { tenants } = limits;
  if (subject.kind !== "tenant" || placed.route === undefined) return () => {};
  const entered = tenants.enterTunnel(subject.keyspace, subject.tenant);
  if ("reason" in entered) throw limited(limits, entered);
  return () => tenants.leaveTunnel(entered);
}

export function checkTunnelShed(
  limits: LimitsContext,
  { priority }: Pick<ChosenRoute, "priority">,
): void {
  if (limits.overload.isShedding(priority)) throw shed(limits, priority);
}

const overOnArrival = (): CellError =>
  new CellError(
    "DEADLINE_EXCEEDED",
    "The client's own deadline was over when the request arrived; no cell was asked.",
    {
      details: { deadline: "client" },
      nextSteps: [
        "Send the request with time left, and compare the client's clock with the router's.",
      ],
    },
  );

/** Up to so many seconds more than one, by chance: those who come back do not come back together. */
const retrySpreadSeconds = 3;

function shed({ metrics, random }: LimitsContext, priority: ChosenRoute["priority"]): CellError {
  metrics.shed.inc({ priority });
  const retryAfterSeconds = 1 + Math.floor(random.unit() * retrySpreadSeconds);
  return new CellError(
    "ROUTER_OVERLOADED",
    `The router has too much to do for requests of priority ${priority}.`,
    {
      details: { priority, retryAfterSeconds },
      nextSteps: ["Send the request again after the time in Retry-After."],
    },
  );
}

const limitTexts = {
  "in-flight": (limit: number) =>
    `The tenant has as many requests under way as it may: ${limit} at once`,
  rate: (limit: number) => `The tenant sends more than its ${limit} requests a second`,
} as const;

function limited({ metrics, tenants }: LimitsContext, refusal: TenantRefusal): CellError {
  const { reason, limit, waitMs } = refusal;
  const { workers } = tenants;
  // One connection is served by one worker, so that it can meet a limit that the tenant as a whole does not.
  const among = workers > 1 ? `, divided among the ${workers} workers of this router` : "";
  metrics.tenantLimited.inc({ reason });
  const retryAfterSeconds = Math.max(1, Math.ceil((waitMs ?? 0) / 1000));
  return new CellError("TENANT_LIMITED", `${limitTexts[reason](limit)}${among}.`, {
    details: { reason, limit, retryAfterSeconds, ...(workers > 1 ? { workers } : {}) },
    nextSteps: ["Send the request again after the time in Retry-After."],
  });
}
