/** Whom a claim is believed from, and for whom somebody silent could be the heir. */
import { expect, test } from "vitest";
import type { Claim, KnownPlacement } from "./recovery.ts";
import { type HeirFacts, mayHaveHeir } from "./recovery-heirs.ts";

const facts: HeirFacts = {
  silent: new Set(["sb-1", "cell-02"]),
  heard: new Set(["sb-2", "sb-4"]),
  leased: new Set(["cell-03"]),
  steady: new Set(),
  annexes: [
    { annex: "sb-1", origin: "cell-01", lo: 0, hi: 127, ordered: false },
    { annex: "sb-2", origin: "cell-01", lo: 128, hi: 255, ordered: false },
    { annex: "sb-1", origin: "cell-03", lo: 0, hi: 127, ordered: false },
  ],
};
const claim = (cell: string, state: Claim["state"] = "active"): Claim => ({
  cell,
  state,
  epoch: 3,
});
const kept = (cell: string): KnownPlacement => ({
  ...{ cell, epoch: 3, state: "unavailable", deleted: false },
});
const one = new Set(["cell-01"]);
const ordered = facts.annexes.map((annex) => ({ ...annex, ordered: annex.annex === "sb-2" }));
type Change = {
  readonly facts?: Partial<HeirFacts>;
  readonly claim?: Claim;
  readonly others?: readonly Claim[];
  readonly known?: KnownPlacement;
  readonly bucket?: number | undefined;
};

test.each<[string, Change, boolean]>([
  ["its standby is silent", {}, true],
  ["everybody has spoken", { facts: { silent: new Set() } }, false],
  ["only a standby of other keys is silent", { bucket: 200 }, false],
  ["nobody knows in which standby it lies", { bucket: undefined }, true],
  ["it held a lease when it spoke", { claim: claim("cell-03") }, false],
  ["an earlier recovery kept it", { claim: claim("cell-03"), known: kept("cell-03") }, true],
  ["an earlier recovery kept it for another", { claim: claim("cell-03"), known: kept("x") }, false],
  [
    "it ran all the while, and its other standby heard of nothing",
    { facts: { steady: one } },
    false,
  ],
  ["it was started anew, whatever others say", { facts: { steady: new Set() } }, true],
  ["it ran, and nobody speaks for it", { facts: { steady: one, heard: new Set() } }, true],
  ["it ran, and its other standby was ordered", { facts: { steady: one, annexes: ordered } }, true],
  ["it ran, and was kept from it", { facts: { steady: one }, known: kept("cell-01") }, true],
  ["it has no standbys", { claim: claim("cell-04") }, false],
  ["it was moving, and somebody is silent", { claim: claim("cell-03", "fenced") }, true],
  [
    "it was moving to one that has spoken",
    { claim: claim("cell-03", "fenced"), others: [claim("cell-04", "importing")] },
    false,
  ],
])("%s", (_, change, expected) => {
  const own = change.claim ?? claim("cell-01");
  const of = { claims: [own, ...(change.others ?? [])], known: change.known };
  const bucket = "bucket" in change ? change.bucket : 7;
  expect(mayHaveHeir({ ...facts, ...change.facts }, own, { ...of, bucket })).toBe(expected);
});
