/** The life of a standby: what is said of it is said only when it is so. */
import { describe, expect, test } from "vitest";
import { standbyStates } from "../../../contract/standby-api.ts";
import {
  mayFollow,
  nextOfStandby,
  type StandbyFacts,
  type StreamSeen,
  standbyTransitions,
} from "./life.ts";
import { aStandby } from "./standby.fixture.ts";
import { isAdoptable, lagMsOf, livingStates, type StandbyView } from "./standby-view.ts";

const stream = (
  phase: Extract<StreamSeen, { kind: "seen" }>["phase"],
  change: Partial<Extract<StreamSeen, { kind: "seen" }>> = {},
): StreamSeen => ({ kind: "seen", phase, reason: "", uncovered: [], ...change });

const next = (one: Partial<StandbyView>, facts: Partial<StandbyFacts> = {}) =>
  nextOfStandby(aStandby("sb-a-b", "a", "b", one), {
    ...{ origin: "there", acked: 0, stream: stream("streaming"), moves: 0, failingOver: false },
    ...facts,
  });

const stays = { kind: "stay" } as const;

describe("the life of a standby", () => {
  test("every state ends in `gone`, and nothing comes back from there", () => {
    for (const from of standbyStates) {
      const reached = new Set([from]);
      for (const state of reached) for (const to of standbyTransitions[state]) reached.add(to);
      expect(reached.has("gone")).toBe(true);
    }
    expect(standbyTransitions.gone).toEqual([]);
  });

  test("whatever follows from facts is a step that the table allows", () => {
    const phases = ["absent", "copying", "streaming", "stopped", "severed"] as const;
    for (const state of standbyStates) {
      for (const phase of phases) {
        for (const acked of [0, 7]) {
          const turn = next(
            { state, listedAt: 5, unlistedAt: 6 },
            { acked, stream: stream(phase) },
          );
          if (turn.kind === "go") expect(mayFollow(state, turn.to)).toBe(true);
        }
      }
    }
  });

  test("it is ready only when its origin has stored a list that names it", () => {
    const announced = { state: "announcing", listedAt: 5 } as const;
    expect(next(announced, { acked: 4 })).toMatchObject({
      ...stays,
      reason: expect.stringContaining("the partner list 5"),
    });
    expect(next(announced, { acked: 5 })).toMatchObject({ kind: "go", to: "ready" });
    expect(next({ state: "announcing", listedAt: null }, { acked: 9 })).toMatchObject(stays);
  });

  test("an origin that turns out to have stored another list makes it wait again", () => {
    const ready = { state: "ready", listedAt: 5 } as const;
    expect(next(ready, { acked: 5 })).toMatchObject(stays);
    expect(next(ready, { acked: 0 })).toMatchObject({ kind: "go", to: "announcing" });
  });

  test("a stream that was cut is never joined again: another standby takes its place", () => {
    const cut = stream("severed");
    expect(next({ state: "ready", listedAt: 0 }, { stream: cut })).toMatchObject({ to: "broken" });
    expect(next({ state: "broken" }, { stream: cut })).toMatchObject({ to: "leaving" });
  });

  test("it is dropped only when its origin has stored a list without it, or is no origin any more", () => {
    const leaving = { state: "leaving", listedAt: 5, unlistedAt: 6 } as const;
    expect(next(leaving, { acked: 5 })).toMatchObject(stays);
    expect(next(leaving, { acked: 6 })).toMatchObject({ kind: "go", to: "dropping" });
    expect(next(leaving, { acked: 5, origin: "gone" })).toMatchObject({ to: "dropping" });
    expect(next({ ...leaving, listedAt: null })).toMatchObject({ to: "dropping" });
  });

  test("a forgotten table keeps it from being announced, and breaks one that is ready", () => {
    const forgotten = stream("streaming", { uncovered: ["public.notes"] });
    expect(next({ state: "syncing" }, { stream: forgotten })).toMatchObject(stays);
    expect(next({ state: "ready" }, { stream: forgotten })).toMatchObject({
      ...{ kind: "go", to: "broken" },
      reason: "tables that are guarded at the origin and not in the stream: public.notes",
    });
  });

  test("a stream that stopped breaks it; one that nobody could look at does not", () => {
    const stopped = stream("stopped", { reason: "the slot is lost" });
    expect(next({ state: "ready" }, { stream: stopped })).toEqual({
      ...{ kind: "go", to: "broken", reason: "the slot is lost" },
    });
    const away = { kind: "unseen", reason: "the database does not answer" } as const;
    expect(next({ state: "ready", listedAt: 0 }, { stream: away })).toEqual({
      ...stays,
      reason: away.reason,
    });
  });

  test("mended, it is announced again: a list that was stored already counts", () => {
    expect(next({ state: "broken" })).toMatchObject({ kind: "go", to: "announcing" });
    expect(next({ state: "announcing", listedAt: 3 }, { acked: 3 })).toMatchObject({ to: "ready" });
  });

  test("what was adopted goes when it owns nothing, and no move needs it", () => {
    expect(next({ state: "adopted", keys: 1 })).toMatchObject(stays);
    expect(next({ state: "adopted" }, { moves: 1 })).toMatchObject(stays);
    expect(next({ state: "adopted" }, { failingOver: true })).toMatchObject(stays);
    expect(next({ state: "adopted" })).toMatchObject({ kind: "go", to: "dropping" });
    expect(next({ state: "adopting" })).toMatchObject(stays);
  });

  test("its lag is what its agent told, and grows when that is silent or sees no heartbeat", () => {
    const told = { heartbeatAgeMs: 400, reportedAtMs: 1000, sees: "alive" } as const;
    expect(lagMsOf(told, 9000)).toBe(400);
    expect(lagMsOf({ ...told, sees: "silent" }, 9000)).toBe(8400);
    expect(lagMsOf(told, 101_000)).toBe(100_400);
    expect(lagMsOf({ ...told, heartbeatAgeMs: null }, 9000)).toBeNull();
  });

  test("what owns keys is neither made anew nor removed, whatever a restored control plane took it for", () => {
    const states = [
      "building",
      "syncing",
      "announcing",
      "ready",
      "broken",
      "leaving",
      "dropping",
    ] as const;
    const cut = { kind: "seen", phase: "severed", reason: "", uncovered: [] } as const;
    const facts = { origin: "gone", acked: 9, stream: cut, moves: 0, failingOver: false } as const;
    for (const state of states) {
      const owner = aStandby("sb-a-b", "a", "b", { state, keys: 3 });
      expect(nextOfStandby(owner, facts), state).toMatchObject({ kind: "go", to: "adopted" });
    }
  });

  test("only what is ready may be adopted from", () => {
    expect(standbyStates.filter((state) => isAdoptable({ state }))).toEqual(["ready"]);
    expect([...livingStates]).not.toContain("leaving");
  });
});
