/**
 * A takeover in every order in which things can happen, and each mistake of corrections A1 to A4 and A6 and
 * of rules R2 to R4, which must be found.
 */
import { describe, expect, test } from "vitest";
import { explore, tell } from "./explore.ts";
import { takeover } from "./takeover.ts";
import { type TakeoverBug, takeoverBugs } from "./takeover-parts.ts";

const statesMax = 200_000;
const quiet = { restartsMax: 0, partnerRestartsMax: 0, listChanges: false, write: false };
const writing = { ...quiet, write: true };
const restarting = { ...quiet, restartsMax: 1 };
const forgetting = { ...quiet, partnerRestartsMax: 1 };
const changing = { ...quiet, listChanges: true };

test.each([writing, restarting, forgetting, changing])(
  "nobody serves beside the heir: %o",
  (size) => {
    expect(tell(explore(takeover(size), statesMax))).toMatch(/^holds in \d+ states/);
  },
  60_000,
);

const sizeOf: Partial<Record<TakeoverBug, typeof quiet>> = {
  "promise-not-waited": quiet,
  "late-grant": quiet,
  "lease-from-answer": quiet,
  "wait-as-configured": quiet,
  "one-dead-partner-stops-all": quiet,
  "unacknowledged-list": changing,
  "dropped-partner": changing,
  "list-without-overlap": changing,
  "restart-forgets": forgetting,
  "no-boot-check": restarting,
  "death-of-a-former-life": restarting,
  "death-frees-routers": { ...restarting, write: true },
  "revoke-is-hold": { ...restarting, write: true },
};

describe("each mistake is found, by a shortest way", () => {
  test.each(Object.keys(takeoverBugs) as TakeoverBug[])(
    "%s",
    (bug) => {
      const result = explore(takeover(sizeOf[bug] ?? writing, bug), statesMax);
      if (result.kind === "broken" || result.kind === "stuck") {
        console.info(`${bug}: ${result.kind} after ${result.trace.length} steps`);
      }
      expect(result.kind).toMatch(/broken|stuck/);
    },
    60_000,
  );
});
