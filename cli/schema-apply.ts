/** `cellctl schema apply`: which cells, in which order, with which databases; and what came of it. */
import { resolve } from "node:path";
import { type Cell, cellSchema } from "../contract/control-api.ts";
import { CellError } from "../contract/errors.ts";
import { standbySchema } from "../contract/standby-api.ts";
import {
  type ApplyEvent,
  type ApplyResult,
  loadManifest,
  loadSchemaApply,
  type MigrationTarget,
  resolveDatabaseUrl,
} from "./adoption.ts";
import { type Api, apiPath } from "./api.ts";
import { usage } from "./failures.ts";
import { flag, type Options, text, texts } from "./grammar.ts";
import { tellSteps } from "./render/schema.ts";
import type { Session } from "./session.ts";

const ringSizeDefault = 1;

export async function apply(session: Session, options: Options): Promise<number> {
  const command = text(options, "command");
  if (command === undefined) throw usage("--command is missing: what migrates one database");
  const store = text(options, "store") ?? "default";
  const overrides = parseOverrides(texts(options, "databaseUrl"));
  const cells = await chooseCells(session, text(options, "cells") ?? "all", overrides);
  const canary = text(options, "canary");
  if (canary !== undefined && !cells.some(({ id }) => id === canary)) {
    throw usage(
      `--canary "${canary}": is not one of the cells ${cells.map(({ id }) => id).join(", ")}`,
    );
  }
  const { orderRings, applySchema } = await loadSchemaApply();
  const targets = cells.map(
    ({ id, standbyOf }): MigrationTarget => ({
      ...{ cell: id, store },
      ...(standbyOf === undefined ? {} : { standbyOf }),
    }),
  );
  const rings = orderRings(targets, { canary, ringSize: ringSizeOf(options) });
  if (flag(options, "dryRun")) {
    const plan = rings.map(({ name, chains }) => ({
      ring: name,
      cells: chains.flat().map(({ cell }) => cell),
    }));
    if (session.out.structured) await session.out.one({ command, rings: plan }, noView);
    else
      await session.out.text(
        plan.map(({ ring, cells: ids }) => `${ring}: ${ids.join(", ")}\n`).join(""),
      );
    return 0;
  }
  const manifestPath = text(options, "manifest");
  const version = text(options, "schemaVersion");
  const result = await applySchema({
    rings,
    command,
    version,
    cwd: session.io.cwd,
    env: session.io.env,
    urlVariable: text(options, "urlVariable") ?? "DATABASE_URL",
    manifest:
      manifestPath === undefined
        ? undefined
        : await (await loadManifest()).readManifest(resolve(session.io.cwd, manifestPath)),
    databaseUrl: (target) => databaseOf(session, target, cells, overrides),
    clock: session.io.clock,
    random: session.io.random,
    signal: session.interrupted(),
    emit: tellApply(session),
  });
  await report(session, result, version);
  return 0;
}

const noView = { id: () => "schema", columns: [] };

function parseOverrides(raws: readonly string[]): ReadonlyMap<string, string> {
  return new Map(
    raws.map((raw): [string, string] => {
      const at = raw.indexOf("=");
      if (at < 1)
        throw usage(`--database-url "${raw.slice(0, at < 0 ? 20 : at)}": must be CELL=REF`);
      return [raw.slice(0, at), raw.slice(at + 1)];
    }),
  );
}

function ringSizeOf(options: Options): number {
  const raw = text(options, "ringSize");
  if (raw === undefined) return ringSizeDefault;
  const size = Number(raw);
  if (Number.isInteger(size) && size >= 1 && size <= 1000) return size;
  throw usage(`--ring-size "${raw}": must be a whole number from 1 to 1000`);
}

type ChosenCell = {
  readonly id: string;
  readonly stores: Cell["stores"];
  /** Of an annex. */
  readonly standbyOf?: string;
};

/** When each cell has its database on the command line, no fleet has to be asked. */
async function chooseCells(
  session: Session,
  wish: string,
  overrides: ReadonlyMap<string, string>,
): Promise<readonly ChosenCell[]> {
  const named = wish === "all" ? undefined : wish.split(",").map((id) => id.trim());
  if (named?.every((id) => overrides.has(id)) === true) {
    return named.map((id) => ({ id, stores: {} }));
  }
  const api = await session.api();
  const cells: Cell[] = [];
  for await (const page of api.pages("/v1/cells", cellSchema)) cells.push(...page.items);
  const living = cells.filter(({ state }) => state !== "retired");
  const unknown = (named ?? []).filter((id) => !living.some((cell) => cell.id === id));
  if (unknown.length > 0) {
    throw new CellError("CELL_UNKNOWN", `There is no such cell: ${unknown.join(", ")}`, {
      nextSteps: ["cellctl cell ls"],
    });
  }
  const chosen = living.filter(({ id }) => named === undefined || named.includes(id));
  return [...chosen, ...(await standbysOf(api, named))];
}

/** Their databases get the migration before what they stand by for (adoption/schema/apply-order.ts). */
async function standbysOf(
  api: Api,
  origins: readonly string[] | undefined,
): Promise<readonly ChosenCell[]> {
  const found: ChosenCell[] = [];
  for await (const page of api.pages("/v1/standbys", standbySchema)) {
    for (const { id, origin, state } of page.items) {
      const isChosen = origins === undefined || origins.includes(origin);
      // What is not built yet gets the schema with its database; what is removed needs none.
      if (!isChosen || state === "planned" || state === "dropping" || state === "gone") continue;
      const { stores } = await api.get(apiPath`/v1/cells/${id}`, cellSchema);
      found.push({ id, stores, standbyOf: origin });
    }
  }
  return found;
}

async function databaseOf(
  session: Session,
  { cell, store }: MigrationTarget,
  cells: readonly ChosenCell[],
  overrides: ReadonlyMap<string, string>,
): Promise<string> {
  const reference =
    overrides.get(cell) ?? cells.find(({ id }) => id === cell)?.stores[store]?.database;
  if (reference === undefined) {
    throw new CellError(
      "CONFIG_INVALID",
      `The fleet knows no database of the store ${store} of ${cell}`,
      {
        nextSteps: [`--database-url ${cell}=REF, as the owner of the tables`],
      },
    );
  }
  return resolveDatabaseUrl(session, reference);
}

function tellApply(session: Session): (event: ApplyEvent) => Promise<void> {
  const { progress } = session;
  const tellStep = tellSteps(progress);
  return async (event) => {
    const { cell } = event.target;
    switch (event.kind) {
      case "target.began":
        return progress.now(`${cell} (${event.ring}): begun`);
      case "target.skipped":
        return progress.done("note", `${cell}: has version ${event.version} already`);
      case "line":
        return progress.done("note", `${cell} | ${event.line.text}`);
      case "step":
        return tellStep(event.event);
      case "target.done":
        return progress.done(
          "ok",
          `${cell}: migrated${event.recorded ? ", version recorded" : ""}`,
        );
    }
  };
}

async function report(
  session: Session,
  result: ApplyResult,
  version: string | undefined,
): Promise<void> {
  const ids = (targets: readonly MigrationTarget[]) => targets.map(({ cell }) => cell);
  const told = {
    version: version ?? null,
    done: ids(result.done),
    skipped: ids(result.skipped),
    failed: result.failed.map(({ target, error }) => ({
      cell: target.cell,
      code: error.code,
      message: error.message,
    })),
    notBegun: ids(result.notBegun),
  };
  if (session.out.structured) await session.out.one(told, noView);
  if (version === undefined && result.done.length > 0) {
    await session.note(
      "No version was recorded: with --schema-version V, cells that have it are skipped.",
    );
  }
  const [first] = result.failed;
  if (first === undefined) {
    await session.progress.done(
      "ok",
      `${told.done.length} migrated, ${told.skipped.length} had it already`,
    );
    return;
  }
  const left = [...told.failed.map(({ cell }) => cell), ...told.notBegun];
  throw new CellError(
    first.error.code,
    `${first.error.message}. Done: ${told.done.join(", ") || "none"}; not begun: ${told.notBegun.join(", ") || "none"}`,
    {
      cause: first.error,
      details: { ...told, op: "schema apply" },
      nextSteps: [
        ...first.error.nextSteps,
        `mend it, then: cellctl schema apply --cells ${left.join(",")} … goes on`,
      ],
    },
  );
}
