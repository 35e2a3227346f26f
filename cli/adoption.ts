/**
 * The one door from the CLI to the room `adoption/`: what works on the user's own databases and
 * files. Each operation is loaded when it is asked for. Addresses of databases are secrets, so they
 * come as references and are resolved here, at the edge.
 */
import { CellError } from "../contract/errors.ts";
import { parseSecretRef, resolveSecret, secretRefRule } from "../runtime/secret-ref.ts";
import { usage } from "./failures.ts";
import { type Options, text } from "./grammar.ts";
import type { Session } from "./session.ts";

export type { Assessment } from "../adoption/assess/judge.ts";
export type { ExportSummary } from "../adoption/export/export-tenant.ts";
export type { PreflightItem } from "../adoption/preflight/item.ts";
export type { ApplyEvent, ApplyResult } from "../adoption/schema/apply.ts";
export type { MigrationTarget } from "../adoption/schema/apply-order.ts";
export type { SchemaFinding, SchemaVerdict } from "../adoption/schema/check.ts";
export type { Plan, StepEvent } from "../adoption/schema/step.ts";

/** The address behind `--database-url REF`. */
export async function databaseUrl(session: Session, options: Options): Promise<string> {
  const raw = text(options, "databaseUrl");
  if (raw === undefined) throw usage(`--database-url is missing: ${secretRefRule}`);
  return resolveDatabaseUrl(session, raw);
}

/** An address written out works, too; if it holds a password, the person is told who can read it. */
export async function resolveDatabaseUrl(session: Session, raw: string): Promise<string> {
  await noteExposedPassword(session, raw);
  const isAddress = /^postgres(ql)?:\/\//i.test(raw);
  if (!isAddress && parseSecretRef(raw) === undefined) {
    throw usage(
      `--database-url: must be ${secretRefRule}`,
      "export DATABASE_URL=postgres://… and pass --database-url env:DATABASE_URL",
      "or put the address into a file that only you can read, and pass --database-url file:PATH",
    );
  }
  const url = isAddress ? raw : await resolveSecret(raw, session.io.env);
  if (/^postgres(ql)?:\/\//i.test(url)) return url;
  throw new CellError("CONFIG_INVALID", `What ${raw} holds is not an address of PostgreSQL`, {
    nextSteps: ["it looks like postgres://ROLE:PASSWORD@HOST:5432/DATABASE"],
  });
}

export async function noteExposedPassword(session: Session, reference: string): Promise<void> {
  const { exposesPassword } = await loadConnection();
  if (!exposesPassword(reference)) return;
  await session.note(
    "Warning: the list of processes shows this password to everybody here. Better: --database-url env:DATABASE_URL",
  );
}

/** Opens a database for the time of `work`. */
export async function withDatabase<T>(
  url: string,
  work: (database: import("../adoption/schema/database.ts").Database) => Promise<T>,
): Promise<T> {
  const [{ openDatabase }, { asRefusal }] = await Promise.all([
    import("../adoption/schema/database.ts"),
    import("../adoption/connection.ts"),
  ]);
  const database = await openDatabase(url);
  try {
    return await work(database);
  } catch (error) {
    throw asRefusal(error);
  } finally {
    await database.close();
  }
}

export const loadManifest = () => import("../adoption/schema/manifest-file.ts");
export const loadSchemaInit = () => import("../adoption/schema/init.ts");
export const loadSchemaCheck = () => import("../adoption/schema/check.ts");
export async function loadSchemaInstall() {
  const [
    { chooseRoles, packScript, planInstallation, runInstallation },
    { otherReaders },
    { readAppCatalog },
  ] = await Promise.all([
    import("../adoption/schema/install.ts"),
    import("../adoption/schema/app-role.ts"),
    import("../adoption/schema/app-catalog.ts"),
  ]);
  return {
    chooseRoles,
    packScript,
    planInstallation,
    runInstallation,
    otherReaders,
    readAppCatalog,
  };
}
export const loadSchemaUninstall = () => import("../adoption/schema/uninstall.ts");
export async function loadSchemaApply() {
  const [{ applySchema }, { orderRings }] = await Promise.all([
    import("../adoption/schema/apply.ts"),
    import("../adoption/schema/apply-order.ts"),
  ]);
  return { applySchema, orderRings };
}
export const loadSchemaScript = () => import("../adoption/schema/plan-script.ts");

export const loadConnection = () => import("../adoption/connection.ts");
export const loadPreflight = () => import("../adoption/preflight/check.ts");
export const loadAssess = () => import("../adoption/assess/assess.ts");
export const loadExport = () => import("../adoption/export/export-tenant.ts");
export const loadTenantQuery = () => import("../adoption/tenants-from-query.ts");
export async function loadAppInit() {
  const [{ lookAround }, { writeAppFile }] = await Promise.all([
    import("../adoption/init/look-around.ts"),
    import("../adoption/init/write-app-file.ts"),
  ]);
  return { lookAround, writeAppFile };
}
