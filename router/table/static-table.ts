/**
 * A router without a control plane: one JSON file names cells and tenants. Epochs are optional there,
 * so none are sent or confirmed. The file is read at start and again on SIGHUP; a bad one is refused,
 * and what was served before goes on.
 */
import { readFile } from "node:fs/promises";
import type { z } from "zod";
import { createAliasHasher, normaliseAlias } from "../../contract/alias.ts";
import { CellError } from "../../contract/errors.ts";
import {
  cellIdSchema,
  defaultKeyspace,
  epochOne,
  revisionSchema,
  tenantIdSchema,
} from "../../contract/ids.ts";
import { placedIssue } from "../../contract/plain-issue.ts";
import {
  type AliasGroup,
  type Aliasing,
  type PlacementGroup,
  type RoutedCell,
  type StaticTable,
  staticTableSchema,
} from "../../contract/routing-table.ts";
import { defaultService } from "../../contract/service-route.ts";
import { optionalLists } from "../../contract/table-lists.ts";
import { buildTable, isTableRefusal } from "../../contract/table-state.ts";
import { parseJson } from "../../table/parse-json.ts";
import type { RoutingView } from "../place/decide.ts";

/** Throws CONFIG_INVALID with everything that is wrong in the file. */
export async function readStaticTable(file: string, revision: number): Promise<RoutingView> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    throw unreadable(file, error);
  }
  return parseStaticTable(file, text, revision);
}

export function parseStaticTable(file: string, text: string, revision: number): RoutingView {
  const json = parseJson(text);
  if (json === undefined) throw invalid(file, ["it is not JSON"]);
  const parsed = staticTableSchema.safeParse(json);
  if (!parsed.success) {
    throw invalid(
      file,
      parsed.error.issues.map((issue) => placedIssue(issue, json)),
    );
  }
  const problems: string[] = [];
  const cells = readCells(parsed.data, problems);
  const groups = readTenants(parsed.data, problems);
  const { passThrough, globalServices, policy } = parsed.data;
  const aliasing = readAliasing(parsed.data);
  const names = readAliases(parsed.data, aliasing, problems);
  const isThere = (cell: string) => Object.hasOwn(parsed.data.cells, cell);
  if (passThrough !== undefined && !isThere(passThrough)) {
    problems.push(`passThrough: there is no cell ${passThrough}`);
  }
  for (const [at, { cell }] of parsed.data.serviceRoutes.entries()) {
    if (cell !== undefined && !isThere(cell)) {
      problems.push(`serviceRoutes.${at}: there is no cell ${cell}`);
    }
  }
  if (problems.length > 0) throw invalid(file, problems);
  const table = buildTable(
    {
      fleet: "static",
      revision: revisionSchema.parse(revision),
      tenantSources: parsed.data.tenantKey,
      serviceRoutes: parsed.data.serviceRoutes,
      keyspaces: [{ name: defaultKeyspace, strategy: "directory", guardMode: "row" }],
      cells,
      aliasing,
      ...optionalLists({ globalServices, policy }),
    },
    [...groups, ...names],
  );
  if (isTableRefusal(table)) throw invalid(file, [table.text]);
  return { table, protocol: "none", passThrough };
}

function readCells(file: StaticTable, problems: string[]): RoutedCell[] {
  return Object.entries(file.cells).flatMap(([raw, cell]) => {
    const id = cellIdSchema.safeParse(raw);
    if (!id.success) {
      problems.push(`cells.${raw}: ${reasonOf(id.error)}`);
      return [];
    }
    const { services } = "services" in cell ? cell : { services: { [defaultService]: cell } };
    return [{ id: id.data, services }];
  });
}

function readTenants(file: StaticTable, problems: string[]): PlacementGroup[] {
  const byCell = new Map<string, PlacementGroup>();
  for (const [tenant, cell] of Object.entries(file.tenants)) {
    const id = tenantIdSchema.safeParse(tenant);
    if (!id.success) problems.push(`tenants.${tenant}: ${reasonOf(id.error)}`);
    const home = cellIdSchema.safeParse(cell);
    if (!home.success || !Object.hasOwn(file.cells, cell)) {
      problems.push(`tenants.${tenant}: there is no cell ${cell}`);
      continue;
    }
    const group = byCell.get(cell) ?? {
      keyspace: defaultKeyspace,
      kind: "tenant",
      cell: home.data,
      epoch: epochOne,
      state: "active",
      values: [],
    };
    group.values.push(tenant);
    byCell.set(cell, group);
  }
  return [...byCell.values()];
}

/** Names do not leave this process, so they need no salt that others do not know. */
const staticSalt = "00".repeat(16);

function readAliasing({ aliases = {}, tenantKey }: StaticTable): Aliasing {
  // Hosts come in lower case, whatever the client wrote.
  const folds = (name: string) =>
    tenantKey.some((source) => "host" in source && source.alias === name);
  const namespaces = Object.keys(aliases).map((name) => ({ name, fold: folds(name) }));
  return { salt: staticSalt, namespaces };
}

function readAliases(file: StaticTable, aliasing: Aliasing, problems: string[]): AliasGroup[] {
  const unknown = file.tenantKey.flatMap(({ alias }) =>
    alias === undefined || Object.hasOwn(file.aliases ?? {}, alias) ? [] : [alias],
  );
  for (const name of unknown) problems.push(`tenantKey: there is no namespace ${name} in aliases`);
  const hashName = createAliasHasher(aliasing.salt);
  return aliasing.namespaces.map(({ name: alias, fold }) => {
    const pairs = new Map<string, AliasGroup["names"][number]>();
    for (const [raw, tenants] of Object.entries(file.aliases?.[alias] ?? {})) {
      const spelled = normaliseAlias(raw, fold);
      if (spelled === undefined)
        problems.push(`aliases.${alias}: ${JSON.stringify(raw)} is no name`);
      const hash = hashName(alias, spelled ?? "");
      for (const tenant of [tenants].flat()) pairs.set(`${hash} ${tenant}`, [hash, tenant]);
    }
    return { alias, keyspace: defaultKeyspace, names: [...pairs.values()] };
  });
}

const reasonOf = (error: z.ZodError): string => error.issues[0]?.message ?? "is invalid";

/** The first of many: a generated file may have a million lines. */
const problemsMax = 20;

/** The system's own text names the file once more. */
function unreadable(file: string, cause: unknown): CellError {
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
  const why = code === "ENOENT" ? "there is no such file" : code || String(cause);
  return new CellError("CONFIG_INVALID", `The table ${file} cannot be read: ${why}.`, {
    cause,
    nextSteps: ["cellctl router --table FILE ...   (a JSON file: docs/router.md)"],
  });
}

const invalid = (file: string, problems: readonly string[]): CellError =>
  new CellError(
    "CONFIG_INVALID",
    `The table ${file} is wrong: ${problems.slice(0, problemsMax).join("; ")}.`,
    {
      details: { problems: problems.slice(0, problemsMax), count: problems.length },
      nextSteps: [`mend ${file}, and start again or send SIGHUP; what it may say: docs/router.md`],
    },
  );
