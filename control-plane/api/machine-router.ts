/**
 * What routers ask: the next change of the table (long poll, which is also their acknowledgement)
 * and the whole table. A router changes nothing here but what is known about itself, its public keys
 * among it, which the next revision of the table names. Agents may follow
 * the table too; they acknowledge nothing, so that "all live routers serve it" stays about routers.
 *
 * A router that has seen more than this database knows proves that the database was restored from
 * an older state (corrections A5); it is believed only after the log has been read once more, since
 * another control plane may simply have been quicker.
 */
import { z } from "zod";
import {
  type RouterSyncRequest,
  type RouterSyncResponse,
  routerAcksSchema,
  routerSyncRequestSchema,
  routerSyncResponseSchema,
} from "../../contract/cell-protocol.ts";
import { CellError } from "../../contract/errors.ts";
import { parseRevision } from "../../contract/ids.ts";
import type { AnnouncedKey } from "../../contract/router-key.ts";
import { snapshotHeadSchema } from "../../contract/routing-table.ts";
import { must } from "../../runtime/assert.ts";
import { isPublicKey } from "../../runtime/signing.ts";
import { evidenceOfRestore, presentedMax } from "../core/recovery.ts";
import { recordAcks } from "../store/failover/acks.ts";
import { recordSeen } from "../store/failover/witnesses.ts";
import { enterRecovery } from "../store/recovery-evidence.ts";
import {
  announceAcknowledgement,
  publishRouterKeys,
  recordRouter,
  sameKeys,
} from "../store/router-record.ts";
import { recordServed } from "../store/slo-counts.ts";
import { type CollectDesk, createCollectDesk } from "./ack-collect.ts";
import { requireSubject } from "./auth.ts";
import type { ApiContext } from "./context.ts";
import { type Endpoint, endpoint } from "./endpoint.ts";
import type { RoutingFeed, TableSnapshot } from "./routing-feed.ts";

/** Below the time after which a silent router counts as gone (`routerLiveMs`). */
const routerWaitMsMax = 10_000;
/** A router that calls more often, without news, is written down this often. */
const recordEveryMs = 1000;
/** 5,000 writes of a page, at the longest. */
const ackPageBytesMax = 12 * 2 ** 20;
const keptSchema = z.object({ kept: z.number().int() });
/** Routers remembered for that; more of them are only written down more often. */
const recordedMax = 1000;

export function machineRouterEndpoints(context: ApiContext, feed: RoutingFeed): Endpoint[] {
  const record = createRecorder(context);
  const desk = createCollectDesk(context);
  return [
    endpoint({
      method: "post",
      path: "/v1/machine/router/sync",
      role: "router",
      tag: "machine",
      summary: "Acknowledge the revision served and wait for the next change of the routing table",
      body: routerSyncRequestSchema,
      answers: { 200: routerSyncResponseSchema },
      serve: async ({ caller, body, request }) => {
        requireSubject(caller, body.router);
        await admitFollower(context, feed, body, `router ${body.router}`);
        await record(body);
        await recordSeen(context.database.read, body);
        await recordServed(context.database.read, body);
        const signal = stopSignal(request);
        return { status: 200, body: await nextAnswer(context, feed, body, signal, desk) };
      },
    }),
    endpoint({
      method: "post",
      path: "/v1/machine/router/acks",
      role: "router",
      tag: "machine",
      summary: "Hand in what was acknowledged for a cell that failed over, page by page",
      body: routerAcksSchema,
      bodyBytesMax: ackPageBytesMax,
      // Keys and paths are what clients sent; they are kept in the report and nowhere else.
      verbatim: true,
      answers: { 200: keptSchema },
      serve: async ({ caller, body }) => {
        requireSubject(caller, body.router);
        await recordAcks(context.database, body);
        return { status: 200, body: { kept: body.entries.length } };
      },
    }),
    endpoint({
      method: "post",
      path: "/v1/machine/agent/table-sync",
      role: "agent",
      tag: "machine",
      summary: "Wait for the next change of the routing table, as an agent that follows it",
      body: routerSyncRequestSchema,
      answers: { 200: routerSyncResponseSchema },
      serve: async ({ caller, body, request }) => {
        requireSubject(caller, body.router);
        await admitFollower(context, feed, body, `the table of cell ${body.router}`);
        const signal = stopSignal(request);
        return { status: 200, body: await nextAnswer(context, feed, body, signal) };
      },
    }),
    endpoint({
      method: "get",
      path: "/v1/machine/routing-table",
      role: "router",
      alsoFor: "agent",
      tag: "machine",
      summary: "The whole routing table, as signed NDJSON",
      answers: { 200: snapshotHeadSchema },
      serve: async () => {
        await requireReady(feed);
        return snapshotResponse(await feed.snapshot());
      },
    }),
  ];
}

/** Aborted when the client is gone. */
export const stopSignal = (request: Request): AbortSignal => request.signal;

export async function requireReady(feed: RoutingFeed): Promise<void> {
  if (!feed.isReady()) await feed.refresh();
}

/** Throws STATE_CONFLICT: a part that was moved here from another fleet says nothing about this one. */
export function requireFleet(theirs: string | undefined, ours: string): void {
  if (theirs === undefined || theirs === "" || theirs === ours) return;
  throw new CellError("STATE_CONFLICT", `This is fleet ${ours}; the caller belongs to ${theirs}.`, {
    details: { fleet: ours, presented: theirs },
    nextSteps: ["Start it with an empty state folder or database, or point it at its own fleet."],
  });
}

/** Belongs to this fleet and has seen nothing newer than it: only then is a follower heard. */
async function admitFollower(
  context: ApiContext,
  feed: RoutingFeed,
  body: RouterSyncRequest,
  who: string,
): Promise<void> {
  await requireReady(feed);
  requireFleet(body.fleet, feed.fleet());
  await noticeRestore(context, feed, body, who);
}

async function noticeRestore(
  context: ApiContext,
  feed: RoutingFeed,
  body: RouterSyncRequest,
  who: string,
): Promise<void> {
  requirePlausible(body.revision, body.epochMax);
  const presented = { revision: body.revision, epoch: body.epochMax, grant: 0 };
  const text = () =>
    evidenceOfRestore(who, presented, {
      revision: feed.revision(),
      epoch: feed.epochMax(),
      grant: 0,
    });
  if (text() === undefined) return;
  await feed.refresh();
  const still = text();
  if (still === undefined) return;
  await enterRecovery(context.database, { who, text: still, presented }, context.clock.nowMs());
}

/** Throws VALIDATION_FAILED for numbers that no control plane can have handed out. */
export function requirePlausible(...presented: readonly number[]): void {
  if (presented.every((value) => value <= presentedMax)) return;
  throw new CellError("VALIDATION_FAILED", `Revision, epoch and grant are below ${presentedMax}.`);
}

/** One write per second and router, unless it acknowledges a new revision. */
function createRecorder(context: ApiContext): (body: RouterSyncRequest) => Promise<void> {
  const written = new Map<string, { atMs: number; revision: number; key: string | undefined }>();
  return async (body) => {
    const nowMs = context.clock.monotonicMs();
    const last = written.get(body.router);
    const isNews = last?.revision !== body.revision;
    const { keys } = body;
    const key = keys?.map(({ id }) => id).join(" ");
    if (!isNews && last.key === key && nowMs - last.atMs < recordEveryMs) return;
    requireGoodKeys(keys ?? []);
    if (written.size >= recordedMax) written.clear();
    written.set(body.router, { atMs: nowMs, revision: body.revision, key });
    if (isNews) context.onAcknowledged?.(body.router, body.revision);
    const named = await recordRouter(context.database.read, body);
    if (keys !== undefined && !sameKeys(named, keys)) {
      await publishKeys(context, body.router, keys);
    }
    if (isNews) await announceAcknowledgement(context.database.read);
  };
}

/** Throws VALIDATION_FAILED: what is no key would be in every table. */
function requireGoodKeys(keys: readonly AnnouncedKey[]): void {
  if (keys.every(isPublicKey)) return;
  throw new CellError(
    "VALIDATION_FAILED",
    "keys: each is an Ed25519 public key under its own hash.",
  );
}

/** While the fleet recovers from a restore tables stay as they are; the router says it again. */
async function publishKeys(
  { database }: ApiContext,
  router: string,
  keys: readonly AnnouncedKey[],
): Promise<void> {
  try {
    await database.transaction((tx) => publishRouterKeys(tx, router, keys));
  } catch (error) {
    if (!(error instanceof CellError && error.code === "RECOVERING")) throw error;
  }
}

/** `desk`: of a router, which alone acknowledges writes. */
async function nextAnswer(
  context: ApiContext,
  feed: RoutingFeed,
  body: RouterSyncRequest,
  signal: AbortSignal,
  desk?: CollectDesk,
): Promise<RouterSyncResponse> {
  const deadlineMs = context.clock.monotonicMs() + Math.min(body.waitMs, routerWaitMsMax);
  for (;;) {
    const answer = feed.answerTo(body.revision, body.checksum);
    const collect = (await desk?.wantedOf(body)) ?? [];
    const leftMs = deadlineMs - context.clock.monotonicMs();
    const isNews = answer.kind !== "unchanged" || desk?.isNews(body, collect) === true;
    if (isNews || leftMs <= 0 || signal.aborted) {
      const revision = must(parseRevision(feed.revision()), "revision");
      const wanted = collect.length === 0 ? {} : { collect: [...collect] };
      return { nonce: body.nonce, revision, ...wanted, answer };
    }
    await (desk?.sooner(feed.changed(leftMs, signal), leftMs, signal) ??
      feed.changed(leftMs, signal));
  }
}

/** Chunks are shared by all readers; each reader pulls at its own pace. */
function snapshotResponse(snapshot: TableSnapshot): Response {
  const chunks = snapshot.chunks[Symbol.iterator]();
  const stream = new ReadableStream<Uint8Array>({
    pull: (controller) => {
      const next = chunks.next();
      if (next.done === true) controller.close();
      else controller.enqueue(next.value);
    },
  });
  return new Response(stream, {
    headers: {
      "content-type": "application/x-ndjson",
      "content-length": String(snapshot.bytes),
      "cache-control": "no-store",
    },
  });
}
