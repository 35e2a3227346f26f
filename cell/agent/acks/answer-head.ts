/**
 * The head of an application's answer, before a router sees it: to a write of a cell with standbys is
 * added where the log stood, one of tier gold waits for a partner; then, and last of all, ownership and
 * lease are looked at once more and confirmed.
 *
 * What must always be true: nothing is awaited after the second look; answers that need none of this
 * cost nothing and are not held back for a turn.
 */
import { headers, positionHeader } from "../../../contract/headers.ts";
import type { CellId } from "../../../contract/ids.ts";
import { filterHeaders } from "../../../contract/raw-headers.ts";
import type { HeadVerdict } from "../../../runtime/http/forward.ts";
import { confirmHead, type Entered, type EntryOptions, outcomeUnknown } from "../entry.ts";
import { lsnMax, positionHeaders } from "../position.ts";
import type { ReplicaWatch } from "../replica-watch.ts";
import type { CommitPositions } from "./commit-position.ts";
import type { GoldGate } from "./gold-gate.ts";
import type { StandbyWatch } from "./standby-watch.ts";

export type Acks = {
  readonly watch: Pick<StandbyWatch, "hasPartners" | "isGold">;
  readonly positions: Pick<CommitPositions, "read">;
  readonly gold: Pick<GoldGate, "keep">;
};

export type AnswerOptions = EntryOptions & {
  readonly cell: CellId;
  readonly acks: Acks;
  readonly watch: Pick<ReplicaWatch, "position"> | undefined;
};

export type Came = {
  readonly method: string;
  readonly status: number;
  readonly raw: string[];
  /** The session is told how far it has written. */
  readonly givesPosition: boolean;
};

const readingMethods: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS"]);

export function answerHead(
  options: AnswerOptions,
  entry: Entered,
  came: Came,
): HeadVerdict | Promise<HeadVerdict> {
  const { acks } = options;
  const key = writtenKey(entry, came);
  const isGold = key !== undefined && acks.watch.isGold(key);
  const wantsLsn = key !== undefined && acks.watch.hasPartners;
  return came.givesPosition || isGold || wantsLsn
    ? answerLater(options, entry, came, { key, isGold, wantsLsn })
    : confirmHead(options, entry, came.raw);
}

/** Of an answer that may stand for something that was written. */
function writtenKey({ asked }: Entered, { method, status }: Came): string | undefined {
  const isWrite = !readingMethods.has(method) && status < 500;
  return isWrite && asked.kind === "keyed" ? asked.request.key : undefined;
}

async function answerLater(
  options: AnswerOptions,
  entry: Entered,
  { raw, givesPosition }: Came,
  {
    key,
    isGold,
    wantsLsn,
  }: { readonly key: string | undefined; readonly isGold: boolean; readonly wantsLsn: boolean },
): Promise<HeadVerdict> {
  const { acks, watch } = options;
  const [position, lsn, kept] = await Promise.all([
    givesPosition ? (watch?.position() ?? lsnMax) : undefined,
    wantsLsn ? acks.positions.read() : undefined,
    isGold && key !== undefined ? acks.gold.keep(key) : "kept",
  ]);
  if (kept === "refused") {
    return { kind: "replace", error: outcomeUnknown("no partner has confirmed to have it yet") };
  }
  const clean = givesPosition ? filterHeaders(raw, (name) => name !== positionHeader) : raw;
  const verdict = confirmHead(options, entry, clean);
  if (verdict.kind === "replace") return verdict;
  const more = [
    ...(position === undefined ? [] : positionHeaders(options.cell, position)),
    ...(lsn === undefined ? [] : [headers.lsn, lsn]),
  ];
  return { kind: "pass", headers: [...verdict.headers, ...more] };
}
