/**
 * How a setting or a grant is mended, in the words of the platform: a statement for a server of one's
 * own, the parameter group of RDS, the flags of Cloud SQL. Nothing here asks for a superuser where
 * the platform has none.
 */
import { escapeIdentifier, escapeLiteral } from "pg";
import type { Platform } from "./facts.ts";

/** Settings that a platform lets nobody set by their own name. */
const renamed: Readonly<Record<Platform, Readonly<Record<string, readonly [string, string]>>>> = {
  plain: {},
  rds: { wal_level: ["rds.logical_replication", "1"] },
  cloudsql: { wal_level: ["cloudsql.logical_decoding", "on"] },
};

/** `restart`: the setting is read at the start of the server only. */
export function setServer(
  platform: Platform,
  setting: string,
  value: string,
  { restart }: { readonly restart: boolean },
): string {
  const [name, wanted] = renamed[platform][setting] ?? [setting, value];
  switch (platform) {
    case "plain":
      return `alter system set ${name} = ${escapeLiteral(wanted)};   then ${restart ? "restart PostgreSQL" : "select pg_reload_conf();"}`;
    case "rds":
      return (
        "aws rds modify-db-parameter-group --db-parameter-group-name GROUP --parameters " +
        `ParameterName=${name},ParameterValue=${wanted},ApplyMethod=${restart ? "pending-reboot" : "immediate"}` +
        (restart ? "   then reboot the instance" : "")
      );
    case "cloudsql":
      return (
        `gcloud sql instances patch INSTANCE --database-flags=${name}=${wanted}` +
        `   (the list replaces all flags: name the others too${restart ? "; restarts" : ""})`
      );
  }
}

/** Works everywhere, for whoever may alter the role. */
export const setForRole = (role: string, setting: string, value: string): string =>
  `alter role ${escapeIdentifier(role)} set ${setting} = ${escapeLiteral(value)};`;

/** Who runs a statement that the role itself can not. */
export const administrators: Readonly<Record<Platform, string>> = {
  plain: "a superuser",
  rds: "the master user (rds_superuser)",
  cloudsql: "the user postgres (cloudsqlsuperuser)",
};

export const asAdministrator = (platform: Platform, statement: string): string =>
  `${statement}   as ${administrators[platform]}`;

export function grantReplication(platform: Platform, role: string): string {
  const name = escapeIdentifier(role);
  return asAdministrator(
    platform,
    platform === "rds"
      ? `grant rds_replication to ${name};`
      : `alter role ${name} with replication;`,
  );
}

/** RDS lets only `rds_superuser` set it; Cloud SQL nobody at all. */
export function grantReplicationRoleSetting(platform: Platform, role: string): string {
  const name = escapeIdentifier(role);
  if (platform === "rds") return asAdministrator(platform, `grant rds_superuser to ${name};`);
  if (platform === "plain") {
    const statement = `grant set on parameter session_replication_role to ${name};`;
    return asAdministrator(platform, statement);
  }
  return "Cloud SQL gives it to nobody: rows that move into this database are copied under the guard";
}
