/**
 * Is the move possible as things stand? Every check says what was found, also where it is good, and what
 * mends it where it is not. Pure: what was read of both sides in, checks out.
 */
import type { MoveCheck } from "../../contract/move-api.ts";
import type { MoveTask } from "../ports.ts";
import { type CheckPlace, listed, passed, refused, warned, wholeMove } from "./check.ts";
import type { StoreFacts } from "./facts.ts";
import { judgeServer } from "./judge-server.ts";
import { judgeTables } from "./judge-tables.ts";

/** Facts, or why there are none. */
export type StoreLook = { readonly facts: StoreFacts } | { readonly unreachable: string };
export type LookedStore = {
  readonly name: string;
  readonly source: StoreLook;
  readonly target: StoreLook;
};
type PackFacts = NonNullable<StoreFacts["pack"]>;
type Side = {
  readonly place: CheckPlace;
  readonly side: "source" | "target";
  readonly task: MoveTask;
};

export function judgeMove(
  task: MoveTask,
  stores: readonly LookedStore[],
  copyMs: number,
): MoveCheck[] {
  const checks = stores.flatMap((store) => {
    const source: Side = { task, side: "source", place: { cell: task.source, store: store.name } };
    const target: Side = { task, side: "target", place: { cell: task.target, store: store.name } };
    return [
      ...judgeLook(source, store.source, copyMs),
      ...judgeLook(target, store.target, copyMs),
      ...judgePair(target, packOf(store.source), packOf(store.target)),
    ];
  });
  return stores.length > 0
    ? checks
    : [
        refused(
          "stores",
          wholeMove,
          "the two cells have no store in common that could be moved",
          "name the stores of both cells, each with its mover",
        ),
      ];
}

export const packOf = (look: StoreLook): PackFacts | undefined =>
  "facts" in look ? look.facts.pack : undefined;

function judgeLook(side: Side, look: StoreLook, copyMs: number): MoveCheck[] {
  const { place } = side;
  if ("unreachable" in look) {
    return [refused("reachable", place, look.unreachable, `cellctl cell get ${place.cell}`)];
  }
  const { facts } = look;
  const server = [
    passed("reachable", place, `${facts.role.name} is let in`),
    ...judgeServer({ place, side: side.side, facts, copyMs }),
  ];
  const { pack } = facts;
  if (pack === undefined) {
    const installed = "cellctl schema install, with the release that runs the control plane";
    return facts.packInstalled
      ? server
      : [
          ...server,
          refused("pack", place, "the schema cellfleet of this release is missing", installed),
        ];
  }
  return [...server, ...judgePack(side, pack), ...judgeTables(pack.tables, place)];
}

function judgePack(side: Side, pack: PackFacts): MoveCheck[] {
  const { place, task } = side;
  return [
    pack.cell === place.cell
      ? passed("cell", place, `the database is ${place.cell}'s`)
      : refused(
          "cell",
          place,
          `the database that stores.${place.store}.mover refers to is that of ${pack.cell ?? "no cell"}, not of ${place.cell}`,
          `cellctl cell get ${place.cell}`,
        ),
    pack.stage === "enforce"
      ? passed("stage", place, "the guard refuses what is not this cell's")
      : refused(
          "stage",
          place,
          `the cell is in stage ${pack.stage}: its guard lets every tenant pass, so nobody can be fenced`,
          `cellctl cell stage ${place.cell} enforce`,
        ),
    judgeKeyspace(side, pack),
    pack.unclassed.length === 0
      ? passed("classes", place, "every table is classed, and guarded where it must be")
      : refused(
          "classes",
          place,
          `tables in no class, or not guarded: ${listed(pack.unclassed)}; a move would leave their rows behind`,
          "class them in cellfleet.schema.yaml, then cellctl schema install",
        ),
    ...(side.side === "source" ? judgeSource(side, pack) : judgeTarget(side, pack)),
    pack.otherPublications.length === 0
      ? passed("other-moves", place, "no other move has left a publication of these keys")
      : refused(
          "other-moves",
          place,
          `publications of other moves name these tenants: ${listed(pack.otherPublications)}`,
          `end that move; what nobody knows of: ${pack.otherPublications.map((name) => `drop publication ${name};`).join(" ")}`,
        ),
    ...(task.keys.length === 0
      ? [refused("keys", wholeMove, "the move has no keys", "name a tenant")]
      : []),
  ];
}

function judgeKeyspace({ place, task }: Side, { keyspace }: PackFacts): MoveCheck {
  const { name, strategy, slotCount } = task.keyspace;
  if (keyspace?.strategy === strategy && (keyspace.slotCount ?? undefined) === slotCount) {
    return passed("keyspace", place, `${name} is a keyspace of strategy ${strategy} here too`);
  }
  return refused(
    "keyspace",
    place,
    keyspace === null
      ? `the cell does not know the keyspace ${name} yet`
      : `${name} has strategy ${keyspace.strategy} and ${keyspace.slotCount ?? "no"} slots here, ${strategy} and ${slotCount ?? "no"} in the fleet`,
    `wait until the agent of ${place.cell} has applied it: cellctl cell get ${place.cell}`,
  );
}

function judgeSource({ place, task }: Side, pack: PackFacts): MoveCheck[] {
  const wrong = task.keys.flatMap(({ key, epoch }) => {
    const there = pack.ownership.find((owned) => owned.key === key);
    if (there?.state === "active" && there.epoch === epoch) return [];
    return [
      `${key} is ${there === undefined ? "absent" : `${there.state} at epoch ${there.epoch}`}, not active at ${epoch}`,
    ];
  });
  const { keyTransactions: blockers } = pack;
  return [
    wrong.length === 0
      ? passed("owner", place, "the source owns every key, at its epoch")
      : refused("owner", place, listed(wrong), `cellctl cell get ${place.cell}`),
    blockers.length === 0
      ? passed("key-transactions", place, "no transaction of the keys stays open")
      : warned(
          "key-transactions",
          place,
          `transactions that wrote rows of the keys stay open, and the fence waits for them: ${listed(blockers.map(({ pid, user, seconds }) => `${pid} (${user}, ${Math.round(seconds)} s)`))}`,
          blockers.map(({ pid }) => `select pg_terminate_backend(${pid});`).join(" "),
        ),
  ];
}

/** `importing` of an earlier try of this move, or what an earlier stay has left, may stand there. */
function judgeTarget({ place, task }: Side, pack: PackFacts): MoveCheck[] {
  const wrong = pack.ownership.flatMap(({ key, state, epoch, op }) => {
    const own = task.keys.find((moving) => moving.key === key);
    const free =
      state === "moved" || state === "dropped" || (state === "importing" && op === task.op);
    if (free && epoch <= (own?.epoch ?? 0)) return [];
    return [`${key} is ${state} at epoch ${epoch}`];
  });
  const residue = pack.sizes.filter(({ rows }) => rows > 0);
  const told = residue.map(({ table, rows, exact }) => `${table}: ${exact ? "" : "about "}${rows}`);
  return [
    pack.leaseLive
      ? passed("lease", place, "the target holds a lease")
      : refused(
          "lease",
          place,
          "the target holds no lease: it could write nothing after the switch",
          `bring back its agent: cellctl cell get ${place.cell}`,
        ),
    wrong.length === 0
      ? passed("not-owner", place, "the target owns none of the keys")
      : refused("not-owner", place, listed(wrong), `cellctl cell get ${place.cell}`),
    residue.length === 0
      ? passed("residue", place, "no row of the keys stands here")
      : task.reverses !== null
        ? passed(
            "residue",
            place,
            `the way back has kept the rows here up to date (${listed(told)})`,
          )
        : warned(
            "residue",
            place,
            `rows of the keys stand here already, and are removed before the copy: ${listed(told)}`,
            "nothing, unless somebody still needs them",
          ),
  ];
}

/** What has to be the same in both. */
function judgePair(
  { place, task }: Side,
  source: PackFacts | undefined,
  target: PackFacts | undefined,
): MoveCheck[] {
  if (source === undefined || target === undefined) return [];
  const different = differingLines(source.schema, target.schema);
  const versions = `${task.source} ${source.schemaVersion ?? "none recorded"}, ${task.target} ${target.schemaVersion ?? "none recorded"}`;
  return [
    different.length === 0
      ? passed("schema", place, "the tables are defined as in the source")
      : refused(
          "schema",
          place,
          `the tables are not defined as in the source: ${listed(different)}`,
          `run the application's migrations in ${task.source} and ${task.target} to the same end`,
        ),
    judgePartitions(place, source, target),
    source.encoding === target.encoding
      ? passed("encoding", place, `both are encoded in ${target.encoding}`)
      : refused(
          "encoding",
          place,
          `the source is encoded in ${source.encoding}, the target in ${target.encoding}: equal texts would not compare as equal`,
          `make the target's database anew with encoding ${source.encoding}`,
        ),
    source.schemaVersion === target.schemaVersion
      ? passed("schema-version", place, `schema version: ${versions}`)
      : refused(
          "schema-version",
          place,
          `the cells' schema versions differ: ${versions}`,
          "run the application's migrations where the version is older, and record it: select cellfleet.set_schema_version('VERSION');",
        ),
  ];
}

/** Partitions are made by a clock in many places, a little earlier here than there: no reason to refuse. */
function judgePartitions(place: CheckPlace, source: PackFacts, target: PackFacts): MoveCheck {
  const missing = source.tables.flatMap(({ name, bounds }) => {
    const there = target.tables.find((table) => table.name === name)?.bounds ?? [];
    if (there.includes("DEFAULT")) return [];
    return bounds.filter((bound) => !there.includes(bound)).map((bound) => `${name} ${bound}`);
  });
  return missing.length === 0
    ? passed("same-partitions", place, "it has a partition for every row of the source")
    : warned(
        "same-partitions",
        place,
        `rows of these partitions would have no place in the target, and end the copy: ${listed(missing)}`,
        "make the same partitions in the target",
      );
}

function differingLines(source: string, target: string): string[] {
  const [here, there] = [source.split("\n"), target.split("\n")];
  const [left, right] = [new Set(here), new Set(there)];
  return [
    ...here.filter((line) => !right.has(line)).map((line) => `only in the source: ${line}`),
    ...there.filter((line) => !left.has(line)).map((line) => `only in the target: ${line}`),
  ];
}
