/**
 * A canary through a public router, as a client would send it: written and read back, per annex. Which
 * request that is the operator says; without it the agents' word for their applications is what there is.
 * Bounded, and told, never a reason to stop: what matters is watched by the poison guard.
 */
import { sql } from "drizzle-orm";
import { request } from "undici";
import type { Clock } from "../../../runtime/clock.ts";
import type { Random } from "../../../runtime/random.ts";
import type { Database } from "../../store/database.ts";
import type { CanaryCheck } from "./world.ts";

export type CanaryTarget = {
  /** Of a public router: `http://127.0.0.1:8080`. */
  readonly origin: string;
  /** The header that names the tenant. */
  readonly tenantHeader: string;
  /** Answers 2xx to a GET. */
  readonly readPath: string;
  /** Takes a POST of `body` for tenants that are labelled `cellfleet.canary=true`; absent: reads only. */
  readonly write?: { readonly path: string; readonly body: unknown } | undefined;
};

const answerMs = 2000;
const triesMax = 3;
const betweenMs = 200;

export function createCanary(options: {
  readonly database: Database;
  readonly clock: Clock;
  readonly random: Random;
  readonly target: CanaryTarget | undefined;
}): CanaryCheck {
  const { database, clock, random, target } = options;
  return async (annex, _run, signal) => {
    if (target === undefined) return "not tried: no router's address is configured";
    const one = await tenantIn(database, annex);
    if (one === undefined) return "not tried: no tenant is active there";
    let said = "";
    for (let tries = 1; tries <= triesMax && !signal.aborted; tries += 1) {
      if (tries > 1) await clock.sleep(betweenMs, signal);
      const ended = await tryOnce(target, one, random, signal).then(
        (text) => ({ text, ok: true }),
        (error) => ({ text: String(error), ok: false }),
      );
      if (ended.ok) return ended.text;
      said = ended.text;
    }
    return `${one.id}: ${said}`;
  };
}

type Tried = { readonly id: string; readonly canary: boolean };

async function tryOnce(
  target: CanaryTarget,
  { id: tenant, canary }: Tried,
  random: Random,
  signal: AbortSignal,
): Promise<string> {
  const writes = canary && target.write !== undefined;
  if (writes) await send(target, { method: "POST", tenant, random, signal });
  await send(target, { method: "GET", tenant, random, signal });
  return writes ? `${tenant}: written and read` : `${tenant}: read`;
}

async function tenantIn(database: Database, annex: string): Promise<Tried | undefined> {
  const { rows } = await database.read.execute<Tried>(sql`
    select t.id, coalesce(t.labels ->> 'cellfleet.canary' = 'true', false) as canary
      from cellfleet_control.placement as p
      join cellfleet_control.tenant as t on t.placement_key = p.key
     where p.cell = ${annex} and p.state = 'active' and not p.deleted
     order by coalesce(t.labels ->> 'cellfleet.canary' = 'true', false) desc, t.id limit 1`);
  return rows[0];
}

async function send(
  target: CanaryTarget,
  how: {
    readonly method: "GET" | "POST";
    readonly tenant: string;
    readonly random: Random;
    readonly signal: AbortSignal;
  },
): Promise<void> {
  const { method, tenant, random } = how;
  const isWrite = method === "POST";
  const path = isWrite ? (target.write?.path ?? target.readPath) : target.readPath;
  const response = await request(`${target.origin}${path}`, {
    method,
    signal: AbortSignal.any([how.signal, AbortSignal.timeout(answerMs)]),
    headers: {
      [target.tenantHeader]: tenant,
      ...(isWrite
        ? { "content-type": "application/json", "idempotency-key": `canary-${random.hex(12)}` }
        : {}),
    },
    ...(isWrite ? { body: JSON.stringify(target.write?.body ?? {}) } : {}),
  });
  await response.body.dump();
  if (response.statusCode >= 300) {
    throw new Error(`${method} ${path} answered ${response.statusCode}`);
  }
}
