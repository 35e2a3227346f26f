import { describe, expect, test } from "vitest";
import { type RpoReport, rpoReportSchema } from "../contract/failover-api.ts";
import { salvagedRowSchema } from "../contract/salvage-api.ts";
import { checkHistory } from "./check.ts";
import type { Entry } from "./model.ts";
import { entriesOfReport, entriesOfSalvage } from "./rpo-entries.ts";

const writeOf = (value: string) => ({
  ...{ key: "default/tenant/acme", tenant: "acme", epoch: 1, method: "POST", path: "/orders" },
  ...{ status: 201, requestId: `request of ${value}`, idempotencyKey: value, atMs: 1, because: "" },
});

const reportOf = (
  lost: readonly string[],
  unknown: readonly string[] = [],
  unavailable: readonly string[] = [],
): RpoReport =>
  rpoReportSchema.parse({
    ...{ failover: "op_1failover001", cell: "cell-01", detectedAt: "", fencedAt: "" },
    ...{ method: "exact", methodReason: "", partners: [], quarantined: [] },
    totals: {
      ...{ keys: 1, adopted: 1, unavailable: 0, quarantined: 0, acked: 0 },
      ...{ lost: lost.length, unknown: unknown.length, found: 0 },
    },
    tenants: [
      {
        ...{ tenant: "acme", key: "default/tenant/acme", boundSeconds: 1 },
        ...{ lost: lost.map(writeOf), unknown: unknown.map(writeOf) },
      },
    ],
    unavailable: unavailable.map((tenant) => ({ key: `default/tenant/${tenant}`, reason: "" })),
  });

/** `kept` survived the failover of cell-01; all of `sent` was acknowledged there. */
function historyOf(sent: readonly string[], kept: readonly string[]): Entry[] {
  const own = (cell: string, epoch: number): Entry => ({
    ...{ kind: "owner", tenant: "acme", cell, epoch, revision: epoch },
  });
  return [
    ...[own("cell-01", 1), own("cell-02", 2)],
    ...sent.flatMap((value, n): Entry[] => [
      { kind: "invoke", at: n * 2, process: value, tenant: "acme", value },
      { kind: "ok", at: n * 2 + 1, process: value, cell: "cell-01", epoch: 1, ref: value },
    ]),
    ...kept.map(
      (value): Entry => ({ kind: "present", tenant: "acme", value, cell: "cell-02", ref: value }),
    ),
    { kind: "read", tenant: "acme" },
  ];
}

const check = (entries: readonly Entry[], report: RpoReport) =>
  checkHistory([...entries, ...entriesOfReport(report)]);
const faults = ({ violations }: ReturnType<typeof checkHistory>) =>
  violations.map(({ kind, value }) => `${kind} ${value}`);

describe("a report is held to its word", () => {
  const entries = historyOf(["a", "b", "c", "d"], ["a", "b"]);

  test("every missing write is named, as lost or unknown: green", () => {
    const verdict = check(entries, reportOf(["c"], ["d"]));
    expect([verdict.ok, verdict.counts.reportedLost, verdict.counts.falseAlarms]).toEqual([
      true,
      2,
      0,
    ]);
  });

  test("a write that it forgets is red, and named", () => {
    expect(faults(check(entries, reportOf(["c"])))).toEqual(["lost d"]);
  });

  test("one that it names in vain is counted", () => {
    const verdict = check(entries, reportOf(["b", "c", "d"]));
    expect([verdict.ok, verdict.counts.falseAlarms]).toEqual([true, 1]);
  });

  test("one that nobody wrote, or that another tenant wrote, is red", () => {
    expect(faults(check(entries, reportOf(["c", "d", "elsewhere"])))).toEqual([
      "malformed elsewhere",
    ]);
    const others: Entry[] = [
      { kind: "invoke", at: 90, process: "o", tenant: "globex", value: "other" },
      { kind: "read", tenant: "globex" },
    ];
    expect(faults(check([...entries, ...others], reportOf(["c", "d", "other"])))).toEqual([
      "foreign other",
    ]);
  });

  test("a write without a name is no reason to look away", () => {
    const report = reportOf(["c"]);
    const { idempotencyKey: _key, ...nameless } = writeOf("d");
    const tenants = report.tenants.map((one) => ({ ...one, unknown: [nameless] }));
    expect(() => entriesOfReport(rpoReportSchema.parse({ ...report, tenants }))).toThrow(
      "nobody can tell",
    );
  });

  test("a tenant that nobody serves need not be read, if the report says so", () => {
    const sent: Entry[] = [
      { kind: "invoke", at: 90, process: "x", tenant: "stranded", value: "x" },
      { kind: "ok", at: 91, process: "x", cell: "cell-01", epoch: 1, ref: "x" },
    ];
    const all = [...entries, ...sent];
    expect(faults(check(all, reportOf(["c", "d"])))).toEqual(["unread "]);
    expect(faults(check(all, reportOf(["c", "d"], [], ["stranded"])))).toEqual([]);
  });
});

test("a commit of a zombie that nobody was told of is excused by its salvaged row alone", () => {
  const entries: Entry[] = [
    ...historyOf(["a"], ["a"]),
    { kind: "invoke", at: 90, process: "z", tenant: "acme", value: "tail" },
    { kind: "info", at: 91, process: "z", reason: "cut" },
    {
      ...{ kind: "commit", tenant: "acme", value: "tail", cell: "cell-01", epoch: 1, txid: "9" },
      committedAt: "2026-01-01T00:00:00Z",
    },
  ];
  const row = salvagedRowSchema.parse({
    ...{ id: "1", key: "", tenant: "acme", store: "main", table: "public.orders", kind: "insert" },
    ...{ changes: 1, identity: { id: "1" }, row: { item: "tail" }, theirs: null, verdict: "free" },
    ...{ decision: "open", note: "", lsn: "0/1", committedAt: "" },
  });
  expect(faults(checkHistory(entries))).toEqual(["phantom tail"]);
  const saved = entriesOfSalvage(
    "cell-01",
    [row],
    ({ row: values }) => values?.["item"] ?? undefined,
  );
  expect(faults(checkHistory([...entries, ...saved]))).toEqual([]);
});
