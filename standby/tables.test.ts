/** Which tables a stream carries, which not and why; names; the worst of several stores. */
import { describe, expect, test } from "vitest";
import { cellIdSchema } from "../contract/ids.ts";
import { routedKeyspaceSchema } from "../contract/routing-table.ts";
import { streamName } from "./names.ts";
import type { StandbyStatus } from "./ports.ts";
import { worstOf } from "./status.ts";
import { planTables, type SideTable } from "./tables.ts";

const keyspaces = [
  routedKeyspaceSchema.parse({ name: "default", strategy: "directory", guardMode: "row" }),
  routedKeyspaceSchema.parse({ name: "logs", strategy: "range", guardMode: "row" }),
];
const notes: SideTable = {
  ...{ schema: "public", table: "notes", kind: "tenant", keyspace: "default" },
  ...{ keyColumn: "tenant_id", keyType: "text", partitioned: false },
  ...{ columns: ["tenant_id", "id"], fault: null, published: "no", subscribed: false },
};
const rates: SideTable = {
  ...{ ...notes, table: "rates", kind: "reference" },
  ...{ keyspace: null, keyColumn: null, keyType: null },
};
const half = { lo: 0, hi: 127 };

const plan = (origin: SideTable, annex: SideTable | undefined = origin) =>
  planTables({ origin: [origin], annex: annex === undefined ? [] : [annex] }, keyspaces, half);

describe("a table", () => {
  test("of tenants is carried by buckets, one of everybody whole", () => {
    expect(plan(notes)).toMatchObject({
      carried: [{ name: '"public"."notes"', filter: { kind: "some" } }],
      uncovered: [],
    });
    expect(plan(rates)).toMatchObject({ carried: [{ filter: { kind: "all" } }] });
  });

  test("of ranges is carried by one partner, and no gap of the other", () => {
    const both = [half, { lo: 128, hi: 255 }].map((buckets) =>
      planTables(
        { origin: [{ ...notes, keyspace: "logs" }], annex: [{ ...notes, keyspace: "logs" }] },
        keyspaces,
        buckets,
      ),
    );
    expect(both.map(({ carried }) => carried.length).toSorted((one, other) => one - other)).toEqual(
      [0, 1],
    );
    expect(both.flatMap(({ uncovered }) => uncovered)).toEqual([]);
  });

  const wider = { ...notes, columns: ["tenant_id", "id", "body"] };
  const cases: ReadonlyArray<readonly [string, SideTable, SideTable | undefined]> = [
    [
      "public.notes (the replica identity of notes is missing)",
      { ...notes, fault: "the replica identity of notes is missing" },
      notes,
    ],
    ["public.notes (its keyspace gone is unknown)", { ...notes, keyspace: "gone" }, notes],
    ["public.notes (rows cannot be told apart by a date)", { ...notes, keyType: "date" }, notes],
    [
      "public.notes (of tenants by the manifest, and not guarded)",
      { ...notes, kind: "loose" },
      notes,
    ],
    [
      "public.notes (the standby's database does not guard it alike)",
      notes,
      { ...notes, keyspace: "logs" },
    ],
    ["public.notes (the standby's database lacks its column body)", wider, notes],
  ];
  test.each(cases)("is not carried: %s", (told, origin, annex) => {
    expect(plan(origin, annex)).toMatchObject({ carried: [], uncovered: [told] });
  });

  test("that the annex lacks is told, and stays in the publication that shows it", () => {
    const shown = { ...wider, published: "filtered" } as const;
    const { carried, wanted, uncovered } = plan(shown, notes);
    expect([carried.length, wanted.length, uncovered.length]).toEqual([0, 1, 1]);
    expect(planTables({ origin: [notes], annex: [] }, keyspaces, half).uncovered).toEqual([
      "public.notes (the standby's database does not have it, or not in this class)",
    ]);
  });
});

describe("the name of a stream", () => {
  const of = (annex: string, store: string) => streamName(cellIdSchema.parse(annex), store);

  test("tells annex and store, and two pairs never share one", () => {
    expect(of("sb-cell-01-cell-02", "main")).toBe("sb_sb_cell_01_cell_02_main");
    expect(of("sb-x-y-z", "w")).not.toBe(of("sb-x-y", "z-w"));
    expect(of("sb-x-y", "z_w")).not.toBe(of("sb-x-y", "z-w"));
    expect(of("sb-x-y", "Main")).not.toBe(of("sb-x-y", "main"));
  });

  test("fits PostgreSQL, with room for what a session of it is called", () => {
    const long = ["a", "b"].map((end) => of(`sb-${"x".repeat(37)}`, `${"s".repeat(39)}${end}`));
    expect(new Set(long).size).toBe(2);
    for (const name of long) expect(name).toMatch(/^[a-z0-9_]{1,52}$/);
  });
});

test("of several stores the worst is told", () => {
  const state = (part: Partial<StandbyStatus>): StandbyStatus => ({
    ...{ phase: "streaming", reason: "", lagBytes: 1, heartbeatAgeMs: 10, uncovered: [] },
    ...part,
  });
  expect(worstOf([state({}), state({ lagBytes: 7, heartbeatAgeMs: null })])).toEqual(
    state({ lagBytes: 7 }),
  );
  expect(
    worstOf([
      state({ uncovered: ["a"] }),
      state({ phase: "copying", lagBytes: null, heartbeatAgeMs: 99 }),
    ]),
  ).toEqual(state({ phase: "copying", lagBytes: null, heartbeatAgeMs: 99, uncovered: ["a"] }));
  expect(
    worstOf([state({ phase: "stopped", reason: "why" }), state({ phase: "absent" })]),
  ).toMatchObject({
    ...{ phase: "stopped", reason: "why" },
  });
  expect(worstOf([])).toMatchObject({ phase: "absent" });
});
