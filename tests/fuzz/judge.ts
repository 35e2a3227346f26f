/**
 * What must be true of every connection and of every cell, whatever was sent: the oracles.
 *
 * - A cell sees a request only if exactly one client asked for it, once, and only the cell of its host.
 * - Answers come in the order of the requests, each to the connection that asked, each well-formed.
 * - Behind an answer that ends the connection nothing of it is carried.
 */
import type { Asked, Stream } from "./expected.ts";
import { type Message, readResponse, statusOf, valuesOf } from "./strict-http.ts";

type Entry = { readonly of: Asked; seen: boolean };
export type Ledger = {
  /** Called before the bytes are sent. */
  readonly add: (stream: Stream) => readonly Entry[];
  /** Forgotten some time later: what is under way to a cell may arrive when its client has gone. */
  readonly retire: (entries: readonly Entry[]) => void;
  readonly note: (cell: "a" | "b", key: string) => void;
  readonly seen: () => number;
};

const retiredMax = 500;

export function createLedger(onFinding: (what: string) => void): Ledger {
  const open = new Map<string, Entry[]>();
  const retired: Array<readonly Entry[]> = [];
  let count = 0;
  const forget = (entries: readonly Entry[]) => {
    for (const entry of entries) {
      const left = (open.get(entry.of.key) ?? []).filter((one) => one !== entry);
      if (left.length === 0) open.delete(entry.of.key);
      else open.set(entry.of.key, left);
    }
  };
  return {
    add: ({ asked }) =>
      asked.map((of) => {
        const entry = { of, seen: false };
        open.set(of.key, [...(open.get(of.key) ?? []), entry]);
        return entry;
      }),
    retire: (entries) => {
      retired.push(entries);
      if (retired.length > retiredMax) forget(retired.shift() ?? []);
    },
    note: (cell, key) => {
      count += 1;
      const entry = open.get(key)?.find(({ seen }) => !seen);
      if (entry === undefined) {
        onFinding(`cell ${cell} saw what nobody asked for, or saw it twice: ${key}`);
        return;
      }
      entry.seen = true;
      if (entry.of.cell !== cell) onFinding(`cell ${cell} saw what is for the other: ${key}`);
    },
    seen: () => count,
  };
}

/** The final answers in what came so far; `rest`: bytes behind them. */
export function readAnswers(
  text: string,
  asked: readonly Asked[],
): {
  readonly answers: readonly Message[];
  readonly trouble: string | undefined;
  readonly rest: number;
} {
  const answers: Message[] = [];
  let at = 0;
  while (at < text.length) {
    const answer = readResponse(text, at, asked[answers.length]?.head === true);
    if (answer.kind === "partial") break;
    if (answer.kind === "broken") return { answers, trouble: answer.why, rest: text.length - at };
    at = answer.end;
    if ((statusOf(answer.start) ?? 0) < 200) continue;
    answers.push(answer);
    // Who refuses bytes cannot know that they asked for no body, and says so in one.
    if (isFinal(answer)) return { answers, trouble: undefined, rest: 0 };
  }
  return { answers, trouble: undefined, rest: text.length - at };
}

const isFinal = ({ fields }: Message): boolean =>
  valuesOf(fields, "connection").some((value) => /close/i.test(value));

export function judge(
  stream: string,
  text: string,
  { asked }: Stream,
  entries: readonly Entry[],
  onFinding: (what: string) => void,
): number {
  const { answers, trouble, rest } = readAnswers(text, asked);
  const told = (what: string) =>
    onFinding(
      `${what}\n  sent: ${JSON.stringify(stream)}\n  came: ${JSON.stringify(text.slice(-4000))}`,
    );
  if (trouble !== undefined) told(`an answer that is not HTTP: ${trouble}`);
  // Behind the last request that the reader knows one refusal may come, to a method it does not know.
  if (answers.length > asked.length + 1) told("more answers than requests");
  if (rest > 0 && answers.length < asked.length) told("an answer that ends too early");
  const isOwn = ({ fields }: Message) => valuesOf(fields, "x-cellfleet-answered-by").length > 0;
  for (const [nth, answer] of answers.entries()) {
    if (!isOwn(answer)) judgeCarried(answer, entries[nth], told);
    if (isFinal(answer) && entries.slice(nth + 1).some(({ seen }) => seen)) {
      told("something was carried behind the answer that ended the connection");
    }
  }
  return answers.filter((answer) => !isOwn(answer)).length;
}

function judgeCarried(
  answer: Message,
  entry: Entry | undefined,
  told: (what: string) => void,
): void {
  if (entry === undefined) told("an answer of a cell to nothing");
  else if (!entry.of.head && answer.body !== entry.of.key) told("an answer to somebody else");
}
