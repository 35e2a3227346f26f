import { expect, test } from "vitest";
import type { Owner } from "../owners.ts";
import { overlapping } from "./two-owners.ts";

const at = (where: string, epoch: number, leased = true): Owner => ({ where, epoch, leased });
const of = (...owners: Owner[]) => new Map([["default/tenant/a", owners]]);
const old = at("cell-01/app", 1);
const heir = at("cell-02/app__sb", 2);

test.each([
  ["the former owner is live after the new one was", of(heir), of(old, heir), 1],
  ["both under one epoch", of(at("cell-03/app", 1)), of(old), 1],
  ["seen once beside each other, while the first one's lease ran out", of(old, heir), of(heir), 0],
  ["it changed hands", of(old), of(heir), 0],
  ["the former one has no lease", of(heir), of(at("cell-01/app", 1, false), heir), 0],
  ["nobody", of(), of(), 0],
])("%s", (_says, before, now, found) => {
  expect(overlapping(before, now)).toHaveLength(found);
});
