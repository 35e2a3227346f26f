/**
 * The executor is replaced before and after the effect of every step of the table, while the former one
 * still goes on and does not know: the move ends all the same, and nothing of it is left.
 */
import { afterAll, beforeAll, expect, test } from "vitest";
import { type MoveStep, moveSteps } from "../../../contract/move-api.ts";
import { eventually } from "../../control.fixture.ts";
import { isMoveEnd, pointOfNoReturn, switchSteps } from "../../core/move/move-state.ts";
import { type MovingFixture, startMovingFixture } from "./moving.fixture.ts";

type Moment = { readonly step: MoveStep; readonly when: "before" | "after" };

/** Steps that an ordinary move does not pass are reached by a cancellation in the middle of its switch. */
const cancelledOnly: ReadonlySet<MoveStep> = new Set(["releasing", "aborting"]);
/** Nothing is done there: one waits for its turn, the other for somebody to look. */
const moments: readonly Moment[] = moveSteps
  .filter((step) => !isMoveEnd(step) && step !== "planned" && step !== "diverged")
  .flatMap((step) => (["before", "after"] as const).map((when) => ({ step, when })));

const atOnce = 10;
const batches = Array.from({ length: Math.ceil(moments.length / atOnce) }, (_, nth) =>
  moments.slice(nth * atOnce, (nth + 1) * atOnce),
);

let fixture: MovingFixture;
beforeAll(async () => {
  fixture = await startMovingFixture();
});
afterAll(async () => {
  await fixture?.close();
});

/** What a switch still sends comes when everything is over; other effects run beside those of the next one. */
const isLate = ({ step, when }: Moment): boolean =>
  when === "after" || switchSteps.includes(step) || step === pointOfNoReturn;

const nameOf = ({ step, when }: Moment): string => `${when} ${step}`;

test.each(batches.map((batch) => [batch.map(nameOf).join(", "), batch] as const))(
  "replaced %s",
  async (_names, batch) => {
    const { cells } = fixture;
    const [soon, late] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const wanted = new Map<string, Moment>();
    const standing = new Set<string>();
    const former = await fixture.lead({
      perSource: batch.length,
      onBoundary: async ({ op, step, when }) => {
        const moment = wanted.get(op);
        if (moment === undefined) return;
        if (cancelledOnly.has(moment.step) && step === "holding") {
          await fixture.ask(op, { wish: "cancel" });
        }
        if (moment.step !== step || moment.when !== when) return;
        standing.add(op);
        await (isLate(moment) ? late : soon).promise;
      },
    });
    const begun = [];
    for (const moment of batch) {
      const tenant = await fixture.createTenant();
      const rows = await cells.rowsOf(cells.a, tenant);
      const id = await fixture.begin([tenant], { switch: "manual", pauseBudgetMs: 10_000 });
      wanted.set(id, moment);
      await fixture.ask(id, { wish: "switch" });
      begun.push({ moment, tenant, rows, id });
    }
    for (const { id } of begun) await fixture.until(id, () => standing.has(id));

    const next = await fixture.lead({ perSource: batch.length });
    // The former one goes on where it stood, with what it believes: beside the next one, or long after.
    soon.resolve();
    const ends: Record<string, string> = {};
    for (const { id, moment, tenant } of begun) {
      const over = await fixture.untilOver(id);
      ends[nameOf(moment)] = `${over.step}: ${await fixture.placed(tenant)}`;
    }
    late.resolve();
    await eventually(
      async () => former.moving.underWay(),
      (left) => left === 0,
    );
    await former.close();

    expect(ends).toEqual(
      Object.fromEntries(
        batch.map((moment) => [
          nameOf(moment),
          cancelledOnly.has(moment.step) ? "cancelled: cell-a 1 active" : "done: cell-b 2 active",
        ]),
      ),
    );
    expect(await fixture.leftovers()).toEqual([]);
    for (const { id, moment, tenant, rows } of begun) {
      const [owner, other] = cancelledOnly.has(moment.step)
        ? [cells.a, cells.b]
        : [cells.b, cells.a];
      expect(await cells.rowsOf(owner, tenant), nameOf(moment)).toEqual(rows);
      expect(await cells.countOf(other, tenant), nameOf(moment)).toBe(0);
      expect(await fixture.recorded(id), nameOf(moment)).toBe(0);
      await cells.write(owner.app, tenant);
    }
    await next.close();
  },
);
