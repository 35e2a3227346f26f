/**
 * The mutation proof: a sound history is green, whatever its size and order, and each way of breaking it is
 * red with its own name. A checker that has not been seen red proves nothing.
 */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { checkHistory } from "./check.ts";
import type { Entry, Verdict, ViolationKind } from "./model.ts";
import { violationKinds } from "./model.ts";

type WriteSpec = {
  readonly tenant: string;
  readonly outcome: "ok" | "fail" | "lost answer" | "never done";
};

/** A move happens in the middle: the first half is written in cell-01 under epoch 1, the rest in cell-02. */
function soundHistory(specs: readonly WriteSpec[]): Entry[] {
  const head: Entry = { kind: "head", format: "cellfleet.history", version: 1, run: "test" };
  const tenants = [...new Set(specs.map(({ tenant }) => tenant))];
  const moved = Math.floor(specs.length / 2);
  const home = (index: number) =>
    index < moved ? { cell: "cell-01", epoch: 1 } : { cell: "cell-02", epoch: 2 };
  const owners = tenants.flatMap((tenant): Entry[] => [
    { kind: "owner", tenant, cell: "cell-01", epoch: 1, revision: 1 },
    { kind: "owner", tenant, cell: "cell-02", epoch: 2, revision: 2 },
  ]);
  const traffic = specs.flatMap((spec, index) => trafficOf(spec, index, home(index)));
  const kept = specs
    .map((spec, index) => ({ ...spec, index, value: `v${index}` }))
    .filter(({ outcome }) => outcome === "ok" || outcome === "lost answer");
  const commits = kept.map(
    ({ tenant, value, index }): Entry => ({
      kind: "commit",
      tenant,
      value,
      txid: String(index),
      committedAt: "2026-01-01T00:00:00Z",
      ...home(index),
    }),
  );
  const present = kept.map(
    ({ tenant, value, index }): Entry => ({
      kind: "present",
      tenant,
      value,
      cell: "cell-02",
      ref: `r${index}`,
    }),
  );
  const read = tenants.map((tenant): Entry => ({ kind: "read", tenant }));
  return [head, ...owners, ...traffic, ...commits, ...present, ...read];
}

function trafficOf(
  { tenant, outcome }: WriteSpec,
  index: number,
  home: { cell: string; epoch: number },
): Entry[] {
  const process = `p${index}`;
  const sent: Entry = { kind: "invoke", at: index * 2, process, tenant, value: `v${index}` };
  const at = index * 2 + 1;
  if (outcome === "ok") return [sent, { kind: "ok", at, process, ref: `r${index}`, ...home }];
  if (outcome === "fail") return [sent, { kind: "fail", at, process, reason: "refused" }];
  return outcome === "never done" ? [sent] : [sent, { kind: "info", at, process, reason: "cut" }];
}

const outcome = fc.constantFrom<WriteSpec["outcome"]>("ok", "fail", "lost answer", "never done");
const writes = fc
  .array(fc.record({ tenant: fc.constantFrom("acme", "globex", "initech"), outcome }), {
    minLength: 4,
    maxLength: 40,
  })
  // Something acknowledged before and after the move, and something refused, for the seeds to break.
  .map((specs): WriteSpec[] => [
    { tenant: "acme", outcome: "ok" },
    ...specs,
    { tenant: "acme", outcome: "fail" },
    { tenant: "acme", outcome: "ok" },
  ]);

const kindsOf = (verdict: Verdict): ViolationKind[] => [
  ...new Set(verdict.violations.map(({ kind }) => kind)),
];
const last = <T>(items: readonly T[]): T | undefined => items[items.length - 1];
const acknowledgedValues = (entries: readonly Entry[]): string[] => {
  const sent = new Map(
    entries.flatMap((one) => (one.kind === "invoke" ? [[one.process, one.value] as const] : [])),
  );
  return entries.flatMap((one) => (one.kind === "ok" ? [sent.get(one.process) ?? ""] : []));
};

/** What is there of acme, and so what a read must show. */
const acmeValues = (entries: readonly Entry[]): string[] =>
  entries.flatMap((one) => (one.kind === "present" && one.tenant === "acme" ? [one.value] : []));

function readOf(
  process: string,
  at: number,
  values: readonly string[],
  by = { cell: "cell-02", epoch: 2 },
): [Entry, Entry] {
  const seen = values.map((value) => ({ value, ref: refOf(value) }));
  return [
    { kind: "list", at, process, tenant: "acme" },
    { kind: "listed", at, process, from: null, seen, ...by },
  ];
}

const refOf = (value: string): string => (value.startsWith("v") ? `r${value.slice(1)}` : value);

function swapOf(
  process: string,
  at: number,
  expected: string | null,
  value: string,
  found: string | null,
): Entry[] {
  return [
    { kind: "swap", at, process, tenant: "acme", register: "r", expected, value },
    { kind: "found", at, process, cell: "cell-02", epoch: 2, value: found },
  ];
}

const effectOf = (id: string, value: string): Entry => ({
  kind: "effect",
  at: 1e9,
  tenant: "acme",
  id,
  value,
});

/** Each seed breaks a sound history in one way; the checker must say at least `kind`. */
const seeds: readonly {
  readonly name: string;
  readonly kind: ViolationKind;
  readonly plant: (entries: readonly Entry[]) => Entry[];
}[] = [
  {
    name: "an acknowledged write is gone",
    kind: "lost",
    plant: (entries) => {
      const victim = acknowledgedValues(entries)[0];
      return entries.filter((one) => !(one.kind === "present" && one.value === victim));
    },
  },
  {
    name: "a write is there twice",
    kind: "duplicate",
    plant: (entries) =>
      entries.flatMap((one) =>
        one.kind === "present" && one.value === "v0" ? [one, { ...one, ref: "again" }] : [one],
      ),
  },
  {
    name: "a write was committed in two cells",
    kind: "duplicate",
    plant: (entries) =>
      entries.flatMap((one) =>
        one.kind === "commit" && one.value === "v0"
          ? [one, { ...one, cell: "cell-02", epoch: 2 }]
          : [one],
      ),
  },
  {
    name: "a refused write is there",
    kind: "resurrected",
    plant: (entries) => {
      const sent = entries.flatMap((one) => (one.kind === "invoke" ? [one] : []));
      const failed = last(entries.flatMap((one) => (one.kind === "fail" ? [one.process] : [])));
      const { tenant, value } = sent.find(({ process }) => process === failed) ?? {
        tenant: "",
        value: "",
      };
      return [...entries, { kind: "present", tenant, value, cell: "cell-02", ref: "back" }];
    },
  },
  {
    name: "something is there that nobody wrote",
    kind: "phantom",
    plant: (entries) => [
      ...entries,
      { kind: "present", tenant: "acme", value: "from nowhere", cell: "cell-02", ref: "x" },
    ],
  },
  {
    name: "an unacknowledged commit vanished without salvage",
    kind: "phantom",
    plant: (entries) => [
      ...entries.filter((one) => !("value" in one && one.value === "cut off")),
      { kind: "invoke", at: 1e9, process: "late", tenant: "acme", value: "cut off" },
      { kind: "info", at: 1e9, process: "late", reason: "cut" },
      {
        kind: "commit",
        tenant: "acme",
        value: "cut off",
        cell: "cell-02",
        epoch: 2,
        txid: "9",
        committedAt: "2026-01-01T00:00:00Z",
      },
    ],
  },
  {
    name: "one tenant sees another's write",
    kind: "foreign",
    plant: (entries) =>
      entries.map((one) =>
        one.kind === "present" && one.value === "v0" ? { ...one, tenant: "stranger" } : one,
      ),
  },
  {
    name: "two cells hand out the same id",
    kind: "id-collision",
    plant: (entries) => entries.map((one) => (one.kind === "ok" ? { ...one, ref: "1" } : one)),
  },
  {
    name: "two cells commit under one epoch",
    kind: "two-writers",
    plant: (entries) =>
      entries.map((one) =>
        one.kind === "commit" && one.value === "v0" ? { ...one, cell: "cell-03" } : one,
      ),
  },
  {
    name: "one epoch is given to two cells",
    kind: "two-writers",
    plant: (entries) =>
      entries.map((one) =>
        one.kind === "owner" && one.revision === 2 ? { ...one, epoch: 1 } : one,
      ),
  },
  {
    name: "a cell that is not the owner acknowledges",
    kind: "not-the-owner",
    plant: (entries) =>
      entries.map((one) =>
        one.kind === "ok" && one.epoch === 2 ? { ...one, cell: "cell-03" } : one,
      ),
  },
  {
    name: "a cell that knows no owner commits",
    kind: "not-the-owner",
    plant: (entries) =>
      entries.map((one) =>
        one.kind === "commit" && one.value === "v0" ? { ...one, epoch: 0 } : one,
      ),
  },
  {
    name: "an old epoch acknowledges after a new one",
    kind: "ack-order",
    plant: (entries) => [
      ...entries,
      { kind: "invoke", at: 1e9, process: "late", tenant: "acme", value: "too late" },
      { kind: "ok", at: 1e9, process: "late", cell: "cell-01", epoch: 1, ref: "late" },
      { kind: "present", tenant: "acme", value: "too late", cell: "cell-02", ref: "late" },
    ],
  },
  {
    name: "an epoch falls",
    kind: "epoch-fell",
    plant: (entries) => [
      ...entries,
      { kind: "owner", tenant: "acme", cell: "cell-01", epoch: 1, revision: 9 },
    ],
  },
  {
    name: "a read misses what was acknowledged before",
    kind: "stale-read",
    plant: (entries) => [...entries, ...readOf("reader", 1e9, [])],
  },
  {
    name: "a read under an old epoch",
    kind: "ack-order",
    plant: (entries) => [...entries, ...readOf("reader", 1e9, [], { cell: "cell-01", epoch: 1 })],
  },
  {
    name: "a cell that is not the owner answers a read",
    kind: "not-the-owner",
    plant: (entries) => [...entries, ...readOf("reader", 1e9, [], { cell: "cell-09", epoch: 2 })],
  },
  {
    name: "a reader no longer sees what it has seen",
    kind: "went-back",
    plant: (entries) => [
      ...entries,
      { kind: "invoke", at: 1e9, process: "late", tenant: "acme", value: "open" },
      ...readOf("reader", 1e9, [...acmeValues(entries), "open"]),
      ...readOf("reader", 1e9 + 1, acmeValues(entries)),
    ],
  },
  {
    name: "two reads at one time each see what the other does not",
    kind: "forked-read",
    plant: (entries) => {
      const all = acmeValues(entries);
      const [one, oneListed] = readOf("reader-1", 1e9, [...all, "left"]);
      const [two, twoListed] = readOf("reader-2", 1e9, [...all, "right"]);
      return [
        ...entries,
        { kind: "invoke", at: 1e9, process: "late-1", tenant: "acme", value: "left" },
        { kind: "invoke", at: 1e9, process: "late-2", tenant: "acme", value: "right" },
        one,
        two,
        oneListed,
        twoListed,
      ];
    },
  },
  {
    name: "what an unanswered write left was read, and is gone",
    kind: "lost",
    plant: (entries) => [
      ...entries,
      { kind: "invoke", at: 1e9, process: "late", tenant: "acme", value: "open" },
      ...readOf("reader", 1e9, [...acmeValues(entries), "open"]),
    ],
  },
  {
    name: "a register forgets",
    kind: "not-linearizable",
    plant: (entries) => [
      ...entries,
      ...swapOf("s", 1e9, null, "one", null),
      ...swapOf("s", 1e9 + 1, "one", "two", null),
    ],
  },
  {
    name: "a message is received twice",
    kind: "effect-twice",
    plant: (entries) => [...entries, effectOf("m1", "v0"), effectOf("m1", "v0")],
  },
  {
    name: "a write has two messages",
    kind: "effect-twice",
    plant: (entries) => [...entries, effectOf("m1", "v0"), effectOf("m2", "v0")],
  },
  {
    name: "a message was lost with its outbox",
    kind: "effect-missing",
    plant: (entries) => [...entries, { kind: "settled", tenant: "acme" }],
  },
  {
    name: "an effect of something that was refused",
    kind: "resurrected",
    plant: (entries) => [
      ...entries,
      { kind: "invoke", at: 1e9, process: "late", tenant: "acme", value: "no" },
      { kind: "fail", at: 1e9, process: "late", reason: "refused" },
      effectOf("m1", "no"),
    ],
  },
  {
    name: "a tenant was not read in the end",
    kind: "unread",
    plant: (entries) => entries.filter((one) => !(one.kind === "read" && one.tenant === "acme")),
  },
  {
    name: "an answer without a question",
    kind: "malformed",
    plant: (entries) => [
      ...entries,
      { kind: "ok", at: 1e9, process: "nobody", cell: "cell-01", epoch: 1, ref: "z" },
    ],
  },
  {
    name: "time runs back",
    kind: "malformed",
    plant: (entries) => [
      ...entries,
      { kind: "invoke", at: -1, process: "early", tenant: "acme", value: "early" },
    ],
  },
  {
    name: "nothing was acknowledged",
    kind: "vacuous",
    plant: (entries) => entries.filter((one) => one.kind === "head"),
  },
];

describe("a sound history is green", () => {
  test("whatever was answered, in whatever mixture, over a move", () => {
    fc.assert(
      fc.property(writes, (specs) => {
        const verdict = checkHistory(soundHistory(specs));
        expect(verdict.violations).toEqual([]);
        expect(verdict.ok).toBe(true);
        expect(verdict.counts.invoked).toBe(specs.length);
      }),
    );
  });

  test("with reads, registers and effects between", () => {
    fc.assert(
      fc.property(writes, (specs) => {
        const sound = soundHistory(specs);
        const acme = acmeValues(sound);
        const extra: Entry[] = [
          ...readOf("reader", 1e9, acme),
          ...readOf("reader", 1e9, acme),
          ...swapOf("s", 1e9, null, "one", null),
          ...swapOf("s", 1e9, null, "two", "one"),
          ...acme.map((value) => effectOf(`m-${value}`, value)),
          { kind: "settled", tenant: "acme" },
        ];
        expect(checkHistory([...sound, ...extra]).violations).toEqual([]);
      }),
    );
  });

  test("without commit logs and owners as well: clients alone are evidence", () => {
    fc.assert(
      fc.property(writes, (specs) => {
        const clients = soundHistory(specs).filter(
          ({ kind }) => kind !== "commit" && kind !== "owner",
        );
        expect(checkHistory(clients).violations).toEqual([]);
      }),
    );
  });
});

describe("each seeded violation turns it red", () => {
  for (const { name, kind, plant } of seeds) {
    test(`${kind}: ${name}`, () => {
      fc.assert(
        fc.property(writes, (specs) => {
          const verdict = checkHistory(plant(soundHistory(specs)));
          expect(verdict.ok).toBe(false);
          expect(kindsOf(verdict)).toContain(kind);
        }),
      );
    });
  }

  test("every kind of violation has a seed", () => {
    // What is beyond the checker's bounds is proved in check-registers.test.ts.
    const seeded = new Set<ViolationKind>([...seeds.map(({ kind }) => kind), "undecided"]);
    expect(violationKinds.filter((kind) => !seeded.has(kind))).toEqual([]);
  });
});

describe("losses are named", () => {
  test("every missing write is named, and no other", () => {
    fc.assert(
      fc.property(writes, fc.infiniteStream(fc.boolean()), (specs, dice) => {
        const entries = soundHistory(specs);
        const doomed = new Set(
          acknowledgedValues(entries).filter(() => dice.next().value === true),
        );
        const after = entries.filter((one) => !(one.kind === "present" && doomed.has(one.value)));
        const lost = checkHistory(after).violations.filter(({ kind }) => kind === "lost");
        expect(new Set(lost.map(({ value }) => value))).toEqual(doomed);
      }),
    );
  });

  test("a loss that a report names is no violation; one that it forgets is", () => {
    const specs: WriteSpec[] = [1, 2, 3].map(() => ({ tenant: "acme", outcome: "ok" }));
    const after = soundHistory(specs).filter(
      (one) => !(one.kind === "present" && one.value !== "v0"),
    );
    const report = (value: string): Entry => ({ kind: "reported-lost", tenant: "acme", value });
    const partial = checkHistory([...after, report("v1"), report("v0")]);
    expect(partial.violations.map(({ kind, value }) => [kind, value])).toEqual([["lost", "v2"]]);
    expect(partial.counts).toMatchObject({ reportedLost: 1, falseAlarms: 1 });
    expect(checkHistory([...after, report("v1"), report("v2")]).ok).toBe(true);
  });

  test("a zombie's commit is excused only when salvaged and never acknowledged", () => {
    const sound = soundHistory([1, 2].map(() => ({ tenant: "acme", outcome: "ok" as const })));
    const zombie: Entry[] = [
      { kind: "invoke", at: 100, process: "z", tenant: "acme", value: "tail" },
      { kind: "info", at: 101, process: "z", reason: "cut" },
      {
        kind: "commit",
        tenant: "acme",
        value: "tail",
        cell: "cell-01",
        epoch: 2,
        txid: "9",
        committedAt: "2026-01-01T00:00:00Z",
      },
    ];
    const salvage: Entry = { kind: "salvaged", tenant: "acme", cell: "cell-01", value: "tail" };
    expect(kindsOf(checkHistory([...sound, ...zombie]))).toEqual(
      expect.arrayContaining(["two-writers", "not-the-owner", "phantom"]),
    );
    expect(checkHistory([...sound, ...zombie, salvage]).violations).toEqual([]);
    const told = zombie.map((one) =>
      one.kind === "info"
        ? ({ kind: "ok", at: 101, process: "z", cell: "cell-01", epoch: 2, ref: "t" } as const)
        : one,
    );
    expect(kindsOf(checkHistory([...sound, ...told, salvage]))).toEqual(
      expect.arrayContaining(["lost", "two-writers", "not-the-owner"]),
    );
  });
});
