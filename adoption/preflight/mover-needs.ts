/**
 * What the role that moves tenants has to be allowed: it replicates, writes ownership, applies rows as
 * their tables' owner, and clears the way for a fence.
 *
 * Pure: facts in, items out.
 */
import { escapeIdentifier } from "pg";
import type { GrantFacts, Platform } from "./facts.ts";
import { grantNeed as grant, judged, type PreflightItem, unseen } from "./item.ts";
import { asAdministrator, grantReplication, grantReplicationRoleSetting } from "./remedy.ts";

export const moverNeeds = (grants: GrantFacts, platform: Platform): PreflightItem[] => [
  ...streams(grants, platform),
  ...actsAs(grants),
  ...ends(grants, platform),
];

function streams(grants: GrantFacts, platform: Platform): PreflightItem[] {
  const { user, superuser } = grants;
  const name = escapeIdentifier(user);
  const seen = (may: boolean) => (may ? `${user} may` : `${user} may not`);
  const replicates = superuser || grants.replication || grants.platformReplication;
  const seesAll = superuser || grants.bypassesRowSecurity || grants.foreignOwners.length === 0;
  return [
    judged(
      grant("create-subscription", "must", "pg_create_subscription", "a tenant moves in by one"),
      {
        ok: grants.mayCreateSubscription,
        text: seen(grants.mayCreateSubscription),
        fix: asAdministrator(platform, `grant pg_create_subscription to ${name};`),
      },
    ),
    judged(
      grant(
        "replication",
        "must",
        platform === "rds" ? "rds_replication" : "REPLICATION",
        "a tenant moves out through a replication slot",
      ),
      { ok: replicates, text: seen(replicates), fix: grantReplication(platform, user) },
    ),
    judged(
      grant(
        "create-publication",
        "must",
        "CREATE on the database",
        "publications and subscriptions are made in it",
      ),
      {
        ok: grants.mayCreateInDatabase,
        text: seen(grants.mayCreateInDatabase),
        fix: asAdministrator(platform, `grant create on database NAME to ${name};`),
      },
    ),
    judged(
      grant(
        "replication-role-setting",
        platform === "cloudsql" ? "should" : "must",
        "SET on session_replication_role",
        "copy and purge write rows of tenants that are not active here",
      ),
      {
        ok: grants.maySetReplicationRole,
        text: seen(grants.maySetReplicationRole),
        fix: grantReplicationRoleSetting(platform, user),
      },
    ),
    judged(
      grant(
        "sees-all-rows",
        "must",
        "BYPASSRLS, or member of the tables' owners",
        "row security would leave rows behind without a word",
      ),
      {
        ok: seesAll,
        text: seesAll ? `${user} sees every row` : `${user} is bound by row security`,
        fix:
          platform === "plain"
            ? asAdministrator(platform, `alter role ${name} bypassrls;`)
            : grants.foreignOwners
                .map((other) => `grant ${escapeIdentifier(other.owner)} to ${name};`)
                .join(" "),
      },
    ),
  ];
}

/** A subscription applies rows as the tables' owner, and who moves tenants writes ownership as the pack's. */
function actsAs({ user, closedOwners, packOwner }: GrantFacts): PreflightItem[] {
  const name = escapeIdentifier(user);
  const mend = (owner: string) =>
    `grant ${escapeIdentifier(owner)} to ${name} with inherit true, set true;`;
  const pack = grant(
    "acts-as-pack-owner",
    "must",
    "member of cellfleet_owner, with SET",
    "gates, fence and activation are written in its schema",
  );
  const isPackOwner = packOwner.maySet && packOwner.inherits;
  return [
    judged(
      grant(
        "acts-as-table-owner",
        "must",
        "member of the tables' owners, with SET",
        "replication applies a tenant's rows as their table's owner",
      ),
      {
        ok: closedOwners.length === 0,
        text:
          closedOwners.length === 0
            ? `${user} may become the owner of every table`
            : closedOwners.map(({ owner, table }) => `${table} belongs to ${owner}`).join("; "),
        fix: closedOwners.map(({ owner }) => mend(owner)).join(" "),
      },
    ),
    packOwner.exists
      ? judged(pack, {
          ok: isPackOwner,
          text: isPackOwner ? `${user} may act as it` : `${user} may not act as it`,
          fix: `cellctl schema install --mover-role ${user}`,
        })
      : unseen(pack, "nothing of Cellfleet is installed on this server yet"),
  ];
}

/** Who stands in a fence's way is named by `monitor`, and ended if the operator says so. */
function ends(grants: GrantFacts, platform: Platform): PreflightItem[] {
  const { user, maySignal } = grants;
  return [
    judged(
      grant(
        "signal",
        "should",
        "pg_signal_backend",
        "a session that stands in the way of a fence cannot be ended without",
      ),
      {
        ok: maySignal,
        text: maySignal ? `${user} is a member` : `${user} is not a member`,
        fix: asAdministrator(platform, `grant pg_signal_backend to ${escapeIdentifier(user)};`),
      },
    ),
  ];
}
