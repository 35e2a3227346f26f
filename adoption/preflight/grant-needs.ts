/**
 * What the roles of a cell's database have to be allowed, and what the application's role must not
 * be: the guard holds only against a role that is neither owner nor superuser.
 *
 * Pure: facts in, items out.
 */
import { escapeIdentifier } from "pg";
import type { GrantFacts, Platform } from "./facts.ts";
import { grantNeed as grant, judged, type Need, type PreflightItem, unseen } from "./item.ts";
import { moverNeeds } from "./mover-needs.ts";
import { asAdministrator } from "./remedy.ts";

/** What the role of the URL is for. */
export const preflightRoles = ["owner", "agent", "mover", "app"] as const;
export type PreflightRole = (typeof preflightRoles)[number];

export function judgeGrants(
  grants: GrantFacts,
  platform: Platform,
  role: PreflightRole,
): PreflightItem[] {
  switch (role) {
    case "owner":
      return [...owner(grants, platform), monitor(grants, platform), ...app(grants)];
    case "agent":
      return [...agent(grants), monitor(grants, platform), ...app(grants)];
    case "mover":
      return [...moverNeeds(grants, platform), monitor(grants, platform), ...app(grants)];
    case "app":
      return app(grants);
  }
}

function owner(grants: GrantFacts, platform: Platform): PreflightItem[] {
  const { user, packOwner, foreignOwners } = grants;
  const name = escapeIdentifier(user);
  const [foreign] = foreignOwners;
  return [
    judged(
      grant(
        "create-in-database",
        "must",
        "CREATE on the database",
        "the schema cellfleet is made in it",
      ),
      {
        ok: grants.mayCreateInDatabase,
        text: grants.mayCreateInDatabase ? `${user} may` : `${user} may not`,
        fix: asAdministrator(platform, `grant create on database NAME to ${name};`),
      },
    ),
    judged(
      grant(
        "roles",
        "must",
        "CREATEROLE, or the role cellfleet_owner with you as its member",
        "the guard belongs to a role that nobody logs in as",
      ),
      {
        ok: grants.superuser || grants.createRole || packOwner.maySet,
        text: rolesText(grants),
        fix: asAdministrator(
          platform,
          packOwner.exists
            ? `grant cellfleet_owner to ${name} with set true;`
            : `create role cellfleet_owner nologin; grant cellfleet_owner to ${name} with set true;`,
        ),
      },
    ),
    judged(
      grant(
        "table-owner",
        "must",
        "owner of the tables, or member of their owners",
        "triggers and policies are made by a table's owner",
      ),
      {
        ok: foreign === undefined,
        text:
          foreign === undefined
            ? `${user} may act as the owner of every table`
            : foreignOwners.map((other) => `${other.table} belongs to ${other.owner}`).join("; "),
        fix: foreignOwners
          .map((other) => `grant ${escapeIdentifier(other.owner)} to ${name};`)
          .join(" "),
      },
    ),
  ];
}

function rolesText({ user, superuser, createRole, packOwner }: GrantFacts): string {
  if (superuser || createRole) return `${user} may create roles`;
  if (packOwner.maySet) return `cellfleet_owner exists and ${user} may become it`;
  return packOwner.exists
    ? `cellfleet_owner exists, but ${user} may not become it`
    : `${user} may not create roles, and cellfleet_owner does not exist`;
}

const monitor = ({ user, mayMonitor }: GrantFacts, platform: Platform): PreflightItem =>
  judged(
    grant(
      "monitor",
      "should",
      "pg_monitor",
      "lag, locks and sessions of others stay hidden without",
    ),
    {
      ok: mayMonitor,
      text: mayMonitor ? `${user} is a member` : `${user} is not a member`,
      fix: asAdministrator(platform, `grant pg_monitor to ${escapeIdentifier(user)};`),
    },
  );

function agent(grants: GrantFacts): PreflightItem[] {
  const { user, pack } = grants;
  const name = escapeIdentifier(user);
  const strong = strengths(grants);
  const may = grant(
    "agent-functions",
    "must",
    "the functions of the schema cellfleet",
    "the agent applies ownership and leases by them, and by nothing else",
  );
  return [
    judged(
      grant(
        "agent-weak",
        "should",
        "no superuser",
        "a stolen login of the agent would be a server",
      ),
      {
        ok: !grants.superuser,
        text: strong === "" ? `${user} is an ordinary role` : `${user} is ${strong}`,
        fix: `alter role ${name} nosuperuser;`,
      },
    ),
    pack.installed
      ? judged(may, {
          ok: pack.mayUse && pack.mayApply,
          text:
            pack.mayUse && pack.mayApply ? `${user} may call them` : `${user} may not call them`,
          fix: `cellctl schema install --agent-role ${user}`,
        })
      : unseen(may, "nothing of Cellfleet is installed in this database yet"),
  ];
}

/** One item per way in which the application could switch its own guard off. */
function app({ app: role }: GrantFacts): PreflightItem[] {
  if (role === null) return [];
  const weak = (id: string, wanted: string, why: string): Need => grant(id, "must", wanted, why);
  const exists = weak("app-role", "exists", "the application logs in as it");
  if ("exists" in role) {
    const fix = `create role ${escapeIdentifier(role.name)} login;`;
    return [judged(exists, { ok: false, text: `there is no role ${role.name}`, fix })];
  }
  const name = escapeIdentifier(role.name);
  const strong = strengths(role);
  return [
    judged(exists, { ok: true, text: role.name, fix: "" }),
    judged(
      weak("app-weak", "no SUPERUSER, no BYPASSRLS", "either sees and writes past the guard"),
      {
        ok: strong === "",
        text: strong === "" ? `${role.name} is an ordinary role` : `${role.name} is ${strong}`,
        fix: `alter role ${name} ${role.superuser ? "nosuperuser " : ""}nobypassrls;`,
      },
    ),
    judged(weak("app-not-owner", "owns no table", "an owner can switch a table's guard off"), {
      ok: role.ownedTables.length === 0 && !role.ownsDatabase,
      text: ownsText(role),
      fix: ownsFix(role),
    }),
    judged(
      weak(
        "app-triggers-stay-on",
        "may not set session_replication_role",
        "it switches triggers off, and the guard is one",
      ),
      {
        ok: role.superuser || !role.maySetReplicationRole,
        text: role.maySetReplicationRole
          ? `${role.name} may set it`
          : `${role.name} may not set it`,
        fix: `revoke set on parameter session_replication_role from ${name};`,
      },
    ),
    judged(
      grant(
        "app-create-role",
        "should",
        "no CREATEROLE",
        "it could make itself a member of owners",
      ),
      {
        ok: !role.createRole,
        text: role.createRole ? `${role.name} may create roles` : `${role.name} may not`,
        fix: `alter role ${name} nocreaterole;`,
      },
    ),
  ];
}

type App = Exclude<NonNullable<GrantFacts["app"]>, { readonly exists: false }>;

function ownsText({ name, ownedTables, ownsDatabase }: App): string {
  if (ownedTables.length > 0)
    return `${name} owns, or can become the owner of, ${ownedTables.join(", ")}`;
  return ownsDatabase ? `${name} owns the database` : `${name} owns nothing`;
}

function ownsFix({ name, ownsDatabase }: App): string {
  const owner = escapeIdentifier(`${name}_owner`);
  const role = escapeIdentifier(name);
  const database = ownsDatabase ? " alter database NAME owner to …;" : "";
  return (
    `create role ${owner} nologin; reassign owned by ${role} to ${owner};${database}` +
    ` grant usage on schema public to ${role}; grant select, insert, update, delete on all tables in schema public to ${role};`
  );
}

const strengths = (role: { superuser: boolean; bypassesRowSecurity: boolean }): string =>
  [
    ...(role.superuser ? ["a superuser"] : []),
    ...(role.bypassesRowSecurity ? ["above row security (BYPASSRLS)"] : []),
  ].join(" and ");
