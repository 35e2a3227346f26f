/**
 * Standbys in the conversation with agents: an origin is told its partners and acknowledges the list; an
 * annex is told whose it is and what was ordered, and reports what it sees, promises and has recorded.
 *
 * A withdrawn order is repeated until it is recorded, and then forgotten on both sides: what the annex
 * reports as withdrawn stands here as no takeover.
 */
import { createHash } from "node:crypto";
import type { AgentSyncRequest, AgentSyncResponse } from "../../contract/cell-protocol.ts";
import { parseCellId } from "../../contract/ids.ts";
import type { Partner, PartnerList } from "../../contract/standby-api.ts";
import { must } from "../../runtime/assert.ts";
import type { Signer } from "../../runtime/signing.ts";
import type { Reader } from "../store/database.ts";
import {
  type AnnexSide,
  type OriginSide,
  readStandbySide,
  recordAnnex,
  recordOrigin,
} from "../store/standby/agent-side.ts";

/** Of the origin's agent, towards the annex's: made anew from the key each time, stored nowhere here. */
export type PairToken = (origin: string, annex: string) => string;

/** Signatures of one key are always the same for one text; nobody without the key makes another. */
export function pairTokens(signer: Signer): PairToken {
  return (origin, annex) =>
    createHash("sha256")
      .update(signer.sign("standby-pair", `${origin}\n${annex}`))
      .digest("base64url");
}

export type StandbySettings = {
  readonly pairToken: PairToken;
  /** How long partners promise, when the control plane is gone. */
  readonly promiseMs: number;
};

export const promiseMsDefault = 20 * 60_000;

export async function recordStandbySaid(reader: Reader, said: AgentSyncRequest): Promise<void> {
  await recordOrigin(reader, said);
  await recordAnnex(reader, said);
}

export type StandbyWord = Pick<AgentSyncResponse, "partners" | "annex"> & {
  /** It is to be told at once. */
  readonly isNews: boolean;
};

export async function standbyWord(
  reader: Reader,
  said: AgentSyncRequest,
  settings: StandbySettings | undefined,
): Promise<StandbyWord> {
  const side = settings && said.primary ? await readStandbySide(reader, said.cell) : undefined;
  if (settings === undefined || side === undefined) return { isNews: false };
  const partners = side.origin && listOf(said.cell, side.origin, settings);
  const annex = side.annex && annexOf(said.cell, side.annex, settings);
  const isListNews =
    partners !== undefined &&
    said.origin !== undefined &&
    partners.revision > said.origin.listRevision;
  // Answered at once, it calls again at once, and says what it knows by then.
  const isAsked = side.annex?.isAsked === true && said.annex?.originSeen !== undefined;
  return {
    ...(partners === undefined ? {} : { partners }),
    ...(annex === undefined ? {} : { annex }),
    isNews: isListNews || isAsked || (annex !== undefined && isOrderNews(said, annex)),
  };
}

function listOf(
  origin: string,
  { revision, partners }: OriginSide,
  { pairToken, promiseMs }: StandbySettings,
): PartnerList {
  const listed = partners.map(
    (row): Partner => ({
      ...row,
      // Never heard of yet: it is a partner all the same, and does not answer.
      endpoint: row.endpoint ?? "http://annex.invalid",
      token: pairToken(origin, row.annex),
    }),
  );
  return { revision, partners: listed, promiseMs };
}

function annexOf(
  annex: string,
  { origin, endpoints, order }: AnnexSide,
  { pairToken }: StandbySettings,
): NonNullable<AgentSyncResponse["annex"]> {
  return {
    origin: must(parseCellId(origin), "cell id"),
    token: pairToken(origin, annex),
    endpoints: [...endpoints],
    ...(order === undefined ? {} : { takeover: order }),
  };
}

/** What an annex has not recorded yet; a later order than ours, it keeps. */
function isOrderNews(
  said: AgentSyncRequest,
  { takeover: wanted }: NonNullable<AgentSyncResponse["annex"]>,
): boolean {
  // An agent of an earlier release records nothing, and would be told again and again.
  if (said.annex === undefined) return said.origin !== undefined;
  if (wanted === undefined) return false;
  const has = said.annex.takeover;
  if (has === undefined || has.failover < wanted.failover) return true;
  if (has.failover > wanted.failover || has.attempt > wanted.attempt) return false;
  if (has.attempt < wanted.attempt) return true;
  return wanted.open && !has.open;
}
