/**
 * Reserve, commit and release of one name, each in one transaction. What routers serve changes with a
 * commit or a release in a routed namespace alone; then a revision is taken and an operation waits for
 * the routers.
 */
import { CellError } from "../../contract/errors.ts";
import { claimText, commitStep, planClaim, releaseStep } from "../core/claims.ts";
import { requireNamespace } from "../store/claim-namespaces.ts";
import {
  type ClaimKey,
  type ClaimRow,
  commitClaim,
  findClaim,
  holdersOf,
  lockClaim,
  lockReservation,
  notClaimed,
  releaseClaim,
  reserveClaim,
  toClaim,
} from "../store/claims.ts";
import type { Tx } from "../store/database.ts";
import { changeRouting, lockNormalFleet } from "../store/routing-change.ts";
import { isSpent } from "../store/tenant-end.ts";
import { findTenant, tenantUnknown } from "../store/tenants.ts";
import { accept, dryRunAnswer, freshOpId } from "./accept.ts";
import type { ApiContext } from "./context.ts";
import type { Answer } from "./endpoint.ts";
import type { Work } from "./mutation.ts";

/** Which name, and for whom; the keyspace defaults to the tenant's own. */
export type WantedName = {
  readonly namespace: string;
  readonly hash: string;
  readonly tenant: string;
  readonly keyspace?: string | undefined;
};

/** A name that is committed at once is reserved for a moment. */
const momentSeconds = 60;

export async function reserve(
  context: ApiContext,
  work: Work,
  wanted: WantedName & { readonly ttlSeconds: number },
): Promise<Answer> {
  const { tx } = work;
  const { ttlSeconds } = wanted;
  await lockNormalFleet(tx);
  const { key, exclusive } = await requireClaimable(work, wanted);
  const object = claimText(key.namespace, key.hash);
  if (work.dryRun) {
    return dryRunAnswer(planClaim("reserve", { object, tenant: key.tenant, routed: false }));
  }
  const before = await findClaim(tx, key);
  await work.record(before === undefined ? null : shown(before), { ...key, ttlSeconds });
  const id = reservationId(context, key);
  const row = await reserveClaim(tx, key, { exclusive, ttlSeconds, id });
  if (row === undefined) throw await taken(work, key);
  const reservation = row.reservation ?? id;
  const next_steps = row.state === "committed" ? [] : [`cellctl claim commit ${reservation}`];
  return { status: 201, body: { claim: toClaim(row), reservation, next_steps } };
}

/** Throws CLAIM_UNKNOWN for a reservation that ran out, was given back, or never was. */
export async function commitHeld(
  context: ApiContext,
  work: Work,
  reservation: string,
): Promise<Answer> {
  const { tx } = work;
  await lockNormalFleet(tx);
  const row = await lockReservation(tx, reservation);
  const step = commitStep(row);
  if (row === undefined || step === "gone") {
    throw notClaimed("There is no such reservation; it may have run out.");
  }
  await requireTenant(tx, row.tenant, row.keyspace);
  return commit(context, work, row, step);
}

export async function commitName(
  context: ApiContext,
  work: Work,
  wanted: WantedName,
): Promise<Answer> {
  const { tx } = work;
  await lockNormalFleet(tx);
  const { key, exclusive, routed } = await requireClaimable(work, wanted);
  if (work.dryRun) {
    const object = claimText(key.namespace, key.hash);
    return dryRunAnswer(planClaim("commit", { object, tenant: key.tenant, routed }));
  }
  const before = await findClaim(tx, key);
  const isDone = commitStep(before) === "done";
  return change(context, work, before ?? key, {
    action: "commit",
    routed: routed && !isDone,
    write: async (revision) => {
      const id = reservationId(context, key);
      const row = await reserveClaim(tx, key, { exclusive, ttlSeconds: momentSeconds, id });
      if (row === undefined) throw await taken(work, key);
      return isDone ? row : commitClaim(tx, key, revision);
    },
  });
}

export async function release(
  context: ApiContext,
  work: Work,
  wanted: WantedName | { readonly reservation: string },
): Promise<Answer> {
  const { tx } = work;
  await lockNormalFleet(tx);
  const isName = !("reservation" in wanted);
  const row = isName
    ? await lockClaim(tx, await keyOf(tx, wanted))
    : await lockReservation(tx, wanted.reservation);
  const step = releaseStep(row, isName ? "name" : "reservation");
  if (row === undefined || step === "gone") {
    throw notClaimed(
      isName
        ? `The name is not claimed for the tenant ${wanted.tenant}.`
        : "There is no such reservation; it may have run out.",
    );
  }
  if (step === "committed") {
    throw new CellError("STATE_CONFLICT", "The reservation was committed: the name is in use.", {
      nextSteps: [`cellctl claim release ${row.namespace}:NAME --tenant ${row.tenant}`],
    });
  }
  const isServed = row.state === "committed" && row.revision !== null;
  return change(context, work, row, {
    action: "release",
    routed: isServed,
    write: (revision) => releaseClaim(tx, row, revision),
  });
}

async function commit(
  context: ApiContext,
  work: Work,
  row: ClaimRow,
  step: "go" | "done",
): Promise<Answer> {
  const { routed } = await requireNamespace(work.tx, row.namespace);
  return change(context, work, row, {
    action: "commit",
    routed: routed && step === "go",
    write: (revision) =>
      step === "done" ? Promise.resolve(row) : commitClaim(work.tx, row, revision),
  });
}

/** The part that commit and release share: audit, revision, row, operation. */
async function change(
  context: ApiContext,
  work: Work,
  row: ClaimRow | ClaimKey,
  how: {
    readonly action: "commit" | "release";
    /** Routers are told. */
    readonly routed: boolean;
    readonly write: (revision: number | null) => Promise<ClaimRow>;
  },
): Promise<Answer> {
  const { namespace, hash, keyspace, tenant } = row;
  const object = claimText(namespace, hash);
  const plan = planClaim(how.action, { object, tenant, routed: how.routed });
  if (work.dryRun) return dryRunAnswer(plan);
  const input = { namespace, hash, keyspace, tenant };
  await work.record("state" in row ? shown(row) : null, { ...input, action: how.action });
  const revision = how.routed ? await changeRouting(work.tx, { config: false }) : undefined;
  const written = await how.write(revision ?? null);
  const answer = await accept(work, {
    id: freshOpId(context, work),
    kind: "claim.change",
    object,
    plan,
    input: { ...input, action: how.action },
    headline: revision === undefined ? `${object} is changed` : "recorded; telling the routers",
    ...(revision === undefined ? { done: true } : { revision }),
    nextSteps: [`cellctl claim ls --tenant ${tenant}`],
  });
  const body = typeof answer.body === "object" ? answer.body : {};
  return { ...answer, body: { ...body, claim: toClaim(written) } };
}

/** For the audit log: no reservation's id. */
const shown = ({ state, tenant, keyspace, revision }: ClaimRow) => ({
  state,
  tenant,
  keyspace,
  revision,
});

const reservationId = (context: ApiContext, { namespace, hash }: ClaimKey): string =>
  `${namespace}.${hash}.${context.random.hex(16)}`;

/** The tenant exists, and the name is nobody else's: what a dry run can know too. */
async function requireClaimable(work: Work, wanted: WantedName) {
  const { tx } = work;
  const { cardinality, routed } = await requireNamespace(tx, wanted.namespace);
  const key = await keyOf(tx, wanted);
  const exclusive = cardinality === "one";
  const others = exclusive ? await othersWith(tx, key) : [];
  if (others.length > 0) throw await taken(work, key);
  return { key, exclusive, routed };
}

async function keyOf(tx: Tx, wanted: WantedName): Promise<ClaimKey> {
  const { namespace, hash, tenant } = wanted;
  return { namespace, hash, tenant, keyspace: await requireTenant(tx, tenant, wanted.keyspace) };
}

/** The tenant's keyspace. Throws TENANT_UNKNOWN, or TENANT_DELETED from the first step of a deletion on. */
async function requireTenant(tx: Tx, id: string, keyspace?: string): Promise<string> {
  if (await isSpent(tx, id)) {
    throw new CellError("TENANT_DELETED", `The tenant ${id} was deleted, or is being deleted.`, {
      nextSteps: [`cellctl tenant receipt ${id}`],
    });
  }
  const found = await findTenant(tx, id, keyspace);
  if (found === undefined) throw await tenantUnknown(tx, id);
  return found.tenant.keyspace;
}

const othersWith = async (tx: Tx, key: ClaimKey): Promise<readonly ClaimRow[]> =>
  (await holdersOf(tx, key.namespace, key.hash)).filter(
    ({ keyspace, tenant }) => keyspace !== key.keyspace || tenant !== key.tenant,
  );

/** Whose it is: these calls are for operators alone, who may take it away. */
async function taken(work: Work, key: ClaimKey): Promise<CellError> {
  const [owner] = await othersWith(work.tx, key);
  if (owner === undefined) {
    return new CellError("CLAIM_TAKEN", "The name is claimed for another tenant.");
  }
  const { tenant, state } = owner;
  return new CellError("CLAIM_TAKEN", `The name is ${state} for the tenant ${tenant}.`, {
    details: { tenant, keyspace: owner.keyspace, state },
    nextSteps: [`cellctl claim release ${key.namespace}:NAME --tenant ${tenant}`],
  });
}
