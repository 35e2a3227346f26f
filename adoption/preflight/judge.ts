/**
 * Is a database fit to be a cell's? Every setting and grant, found or missing, each with its fix.
 *
 * Pure: facts in, report out; `check.ts` reads the facts.
 */
import type { GrantFacts, PreflightFacts } from "./facts.ts";
import { judgeGrants, type PreflightRole } from "./grant-needs.ts";
import { judged, type PreflightItem } from "./item.ts";
import { judgeServer } from "./server-needs.ts";

export function judgePreflight(facts: PreflightFacts, role: PreflightRole): PreflightItem[] {
  const { server, grants } = facts;
  return [
    ...judgeServer(
      { ...server, settings: { ...server.settings, ...ownSettings(grants) } },
      grants?.app?.name,
    ),
    ...judgeConnection(facts, role),
    ...(grants === undefined ? [] : judgeGrants(grants, server.platform, role)),
  ];
}

/** Limits that the application's role has of its own: they count for the transactions that matter. */
function ownSettings(grants: GrantFacts | undefined): Record<string, string> {
  if (grants?.app === undefined || grants.app === null || "exists" in grants.app) return {};
  const own = grants.app.settings.map((item): [string, string] => {
    const at = item.indexOf("=");
    return [item.slice(0, at), item.slice(at + 1)];
  });
  return Object.fromEntries(
    own.flatMap(([name, value]) => {
      const ms = milliseconds(value);
      return limits.includes(name) && ms !== undefined ? [[name, String(ms)]] : [];
    }),
  );
}

const limits = ["idle_in_transaction_session_timeout", "statement_timeout", "transaction_timeout"];
const units: Readonly<Record<string, number>> = {
  "": 1,
  ms: 1,
  s: 1000,
  min: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

/** As PostgreSQL writes times: `60s`, `5min`, `60000`. */
function milliseconds(value: string): number | undefined {
  const [, digits, unit = ""] = /^(\d+)\s*([a-z]*)$/.exec(value) ?? [];
  const factor = units[unit];
  return digits === undefined || factor === undefined ? undefined : Number(digits) * factor;
}

function judgeConnection({ server, pooling }: PreflightFacts, role: PreflightRole) {
  const direct = role === "agent" || role === "mover";
  const encrypted = judged(
    {
      id: "ssl",
      group: "connection",
      severity: "should",
      wanted: "TLS, unless it stays on this machine",
      why: "passwords and rows cross the network",
    },
    {
      ok: server.ssl || server.local,
      text: server.ssl ? "TLS" : server.local ? "not encrypted, on this machine" : "not encrypted",
      fix: "add ?sslmode=verify-full to the URL, with the server's CA",
    },
  );
  const pooled = judged(
    {
      id: "pooler",
      group: "connection",
      severity: direct ? "must" : "should",
      wanted: direct ? "a direct connection" : "a direct connection for whoever changes the schema",
      why: direct
        ? "the agent holds a lock of its session and LISTENs; a move replicates: a pooler carries neither"
        : "one piece of work must stay on one connection; the application itself may use the pooler",
    },
    {
      ok: pooling === "none" || role === "app",
      text: poolingTexts[pooling],
      fix: "give the URL of PostgreSQL itself, past the pooler (its own port is often 5432)",
    },
  );
  return [encrypted, pooled];
}

const poolingTexts: Readonly<Record<PreflightFacts["pooling"], string>> = {
  none: "direct",
  session: "through a pooler that keeps sessions together",
  transaction: "through a pooler that gives each transaction another session",
};
