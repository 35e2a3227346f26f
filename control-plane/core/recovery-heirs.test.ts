/** Whom a claim is believed from, and for whom somebody silent could be the heir. */
import { expect, test } from "vitest";
import type { Claim, KnownPlacement } from "./recovery.ts";
import { type HeirFacts, mayHaveHeir } from "./recovery-heirs.ts";

const facts: HeirFacts = {
  silent: new Set(["sb-1", "cell-02"]),
  leased: new Set(["cell-03"]),
  annexes: [
    { annex: "sb-1", origin: "cell-01", lo: 0, hi: 127 },
    { annex: "sb-2", origin: "cell-01", lo: 128, hi: 255 },
    { annex: "sb-1", origin: "cell-03", lo: 0, hi: 127 },
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
  ["it has no standbys", { claim: claim("cell-04") }, false],
  ["it was moving, and somebody is silent", { claim: claim("cell-03", "fenced") }, true],
  [
    "it was moving to one that has spoken",
    { claim: claim("cell-03", "fenced"), others: [claim("cell-04", "importing")] },
    false,
  ],
])("%s", (_, change, expected) => {
  const one = change.claim ?? claim("cell-01");
  const of = { claims: [one, ...(change.others ?? [])], known: change.known };
  const bucket = "bucket" in change ? change.bucket : 7;
  expect(mayHaveHeir({ ...facts, ...change.facts }, one, { ...of, bucket })).toBe(expected);
});
