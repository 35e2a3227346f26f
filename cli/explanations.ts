/**
 * What `cellctl explain WORD` knows by itself: every error code, every SQLSTATE of a cell's
 * database, and the kinds of object with their fields, read from the contract's own schemas.
 */
import { z } from "zod";
import { claimSchema } from "../contract/claims-api.ts";
import {
  auditEntrySchema,
  cellSchema,
  keyspaceSchema,
  opSchema,
  overrideSchema,
  routerSchema,
  tenantSchema,
  tokenSchema,
} from "../contract/control-api.ts";
import { errorCodes, errorTable, isErrorCode } from "../contract/errors.ts";
import { eventSchema } from "../contract/event-api.ts";
import { moveSchema } from "../contract/move-api.ts";
import { sqlStates } from "../contract/sql-states.ts";
import { CliError, cliErrorTable, isCliErrorCode } from "./failures.ts";
import type { explainedSchema } from "./shapes.ts";

export type Explained = z.infer<typeof explainedSchema>;
type JsonSchema = z.core.JSONSchema.BaseSchema;

const kinds: Readonly<Record<string, { readonly text: string; readonly schema: z.ZodType }>> = {
  cell: {
    text: "A full copy of the application with its own database, which serves some of the tenants. State is what is intended, health is what is observed; neither overrules the other.",
    schema: cellSchema,
  },
  tenant: {
    text: "Whom a request belongs to: a customer, a workspace, a user.",
    schema: tenantSchema,
  },
  placement: {
    text: "Which cell owns a placement key, under which epoch. Only the owner may write; the database of every other cell refuses.",
    schema: tenantSchema.shape.placement,
  },
  keyspace: {
    text: "A named set of tenants with one mapping strategy: directory (each tenant on its own), range, or slots.",
    schema: keyspaceSchema,
  },
  move: {
    text: "Keys of one keyspace on their way from one cell to another, with their rows, while they are served: copied, followed, compared, switched, and for a while able to go back. docs/moves.md tells each step.",
    schema: moveSchema,
  },
  override: {
    text: "A tenant of a slots or range keyspace that is placed on its own, above its container.",
    schema: overrideSchema,
  },
  claim: {
    text: "A unique name of a tenant: a domain, an API key, a mail address, an account of webhooks. Only its hash is kept; in a routed namespace routers find the tenant by it.",
    schema: claimSchema,
  },
  op: {
    text: "A long operation. It runs in the control plane, survives its crash, and is done only when every live router serves the result.",
    schema: opSchema,
  },
  router: {
    text: "A process that forwards each request to the cell of its tenant, from a routing table in memory.",
    schema: routerSchema,
  },
  event: { text: "Something that happened, in one sentence.", schema: eventSchema },
  audit: {
    text: "One entry of the record of who did what and why: written before the effect, chained by hashes.",
    schema: auditEntrySchema,
  },
  token: {
    text: "A right to ask the control plane, with a role. Only its hash is kept.",
    schema: tokenSchema,
  },
};

/** What one field means, where its name and type do not say it. */
const fieldNotes: Readonly<Record<string, string>> = {
  "cell.state": "what is intended: only an active cell gets new tenants",
  "cell.goal": "the state that the running operation leads to; equal to state when there is none",
  "cell.health": "what is observed, from the agent's calls and from what routers see",
  "cell.healthReason": "one sentence: why the health is what it is",
  "cell.tiers": "tiers that may live here; empty means all",
  "cell.dedicated": "true: only tenants that were created for it by name",
  "cell.lease": "the cell's permission to serve; without one its database refuses writes",
  "cell.lease.mode":
    "manual: its leases do not end by themselves, and nobody takes over before somebody has seen it powered off; absent: timed",
  "cell.lease.settled":
    "whether the cell has acknowledged the mode; until then it counts as manual",
  "cell.lease.outstandingMs":
    "how long a grant that is out can still be valid: a takeover would wait this long",
  "tenant.size": "declared; the larger of declared and measured counts against the capacity",
  "tenant.placement": "which cell owns it: cellctl explain placement",
  "placement.key":
    "the unit that is owned and moved: KEYSPACE/tenant/ID, KEYSPACE/slot/N or KEYSPACE/range/FROM",
  "placement.epoch": "raised only when the owner changes; never falls",
  "placement.state":
    "active: served; pending: its cell has not confirmed yet; hold: requests wait; unavailable: nobody may serve it",
  "placement.revision": "the revision of the routing table that last changed it",
  "move.step":
    "where it stands; up to and with committing it can be taken back by itself, from activating on only by `move reverse`. Between hold and commit it says holding",
  "move.asked": "what was asked of it and is not taken up yet",
  "move.reverses": "the move that this one takes back",
  "move.tries": "how often the switch was tried",
  "move.pause":
    "how long requests waited in the switch that was committed, part by part, in milliseconds",
  "move.progress.lagBytes": "write-ahead log that the target has not applied; null: not known now",
  "move.options.pauseBudgetMs":
    "longest time that requests may be held; above it the switch is taken back",
  "move.options.soakMs": "how long the source follows the target after the switch",
  "move.soakUntil": "until then it can be taken back with all that was written since",
  "tenant.move": "the open move that it is part of; absent when it is at rest",
  "op.version": "grows with every change of the operation",
  "op.revision": "the revision that all live routers must serve before it is done",
  "router.behind": "how many revisions it is behind the fleet",
  "router.live": "it has asked the control plane within the last 15 seconds",
  "override.container": "the slot or range that would own the tenant without the override",
  "claim.hash": "of namespace and name with the fleet's salt: cellctl claim check NAMESPACE:NAME",
  "claim.expiresAt": "of a reservation: it is nobody's from then on; null when committed",
  "audit.outcome": "accepted is written before the effect; a refusal says its code",
  "audit.hash": "SHA-256 over the previous hash and this entry",
  "token.subject": "machine tokens speak for this one cell or router only",
};

export const explainableWords = (): string[] => [
  ...Object.keys(kinds),
  ...errorCodes,
  ...Object.keys(cliErrorTable),
  ...Object.keys(sqlStates),
];

export function explainWord(word: string): Explained {
  const code = word.toUpperCase().replace(/-/g, "_");
  if (isErrorCode(code)) return explainError(code);
  if (isCliErrorCode(code)) {
    const { exit, meaning } = cliErrorTable[code];
    return {
      id: code,
      kind: "error",
      text: meaning,
      facts: { "exit code": String(exit), said_by: "cellctl itself" },
    };
  }
  for (const [state, { name, action, meaning }] of Object.entries(sqlStates)) {
    if (state !== code && name !== word.toLowerCase()) continue;
    return {
      id: state,
      kind: "sqlstate",
      text: meaning,
      facts: { name, "an application should": actions[action] },
    };
  }
  const [kind = "", ...path] = word.split(".");
  const known = Object.hasOwn(kinds, kind) ? kinds[kind] : undefined;
  if (known === undefined) throw unknownWord(word);
  return explainField(kind, path, known);
}

const actions = {
  requeue: "resolve the route anew and repeat the transaction",
  fail: "give up: this is a fault in the application",
} as const;
const retryTexts = {
  never: "it will fail the same way",
  safe: "yes: nothing was done",
  "idempotent-only":
    "only an idempotent request, or with the same Idempotency-Key: it may have been done",
} as const;

/** Refused for what the fleet is like now: that changes, also without anybody. */
const whileItLasts: Partial<Record<keyof typeof errorTable, string>> = {
  FAILOVER_BLOCKED: "when the gate is open: some open by themselves, others are gone past by name",
  LEASE_TOO_LONG: "when the lease is nearly over",
  SAFETY_RULE: "when what the rule found is over",
};

function explainError(code: keyof typeof errorTable): Explained {
  const { httpStatus, source, retry, exit, meaning } = errorTable[code];
  return {
    id: code,
    kind: "error",
    text: meaning,
    facts: {
      "HTTP status": String(httpStatus),
      "at fault": source,
      "may be repeated": whileItLasts[code] ?? retryTexts[retry],
      "exit code": String(exit),
    },
  };
}

function explainField(
  kind: string,
  path: readonly string[],
  known: { readonly text: string; readonly schema: z.ZodType },
): Explained {
  let schema = z.toJSONSchema(known.schema, { io: "input", unrepresentable: "any" }) as JsonSchema;
  for (const name of path) {
    const next = propertiesOf(schema)[name];
    if (next === undefined)
      throw unknownWord([kind, ...path].join("."), Object.keys(propertiesOf(schema)));
    schema = next;
  }
  const id = [kind, ...path].join(".");
  const fields = Object.entries(propertiesOf(schema)).map(([name, field]) => [
    name,
    [typeText(field), fieldNotes[`${id}.${name}`]].filter((part) => part !== undefined).join(": "),
  ]);
  return {
    id,
    kind: path.length === 0 ? "kind" : "field",
    text: path.length === 0 ? known.text : (fieldNotes[id] ?? typeText(schema)),
    facts: Object.fromEntries(fields),
  };
}

/** Of an object, or of the objects in a list, or of the one branch that is an object. */
function propertiesOf(schema: JsonSchema): Record<string, JsonSchema> {
  const items = schema.items;
  if (typeof items === "object" && !Array.isArray(items)) return propertiesOf(items as JsonSchema);
  const branch = schema.anyOf?.find(
    (one) => typeof one === "object" && one.properties !== undefined,
  );
  const from = branch === undefined ? schema : (branch as JsonSchema);
  return (from.properties ?? {}) as Record<string, JsonSchema>;
}

function typeText(schema: JsonSchema): string {
  if (schema.enum !== undefined) return schema.enum.join(" | ");
  if (schema.anyOf !== undefined) {
    return schema.anyOf.map((one) => typeText(one as JsonSchema)).join(" or ");
  }
  if (schema.type === "array" && typeof schema.items === "object" && !Array.isArray(schema.items)) {
    return `list of ${typeText(schema.items as JsonSchema)}`;
  }
  if (schema.type === "object" && schema.properties === undefined) return "map";
  return schema.type === undefined ? "anything" : String(schema.type);
}

function unknownWord(word: string, near: readonly string[] = explainableWords()): CliError {
  const close = near.filter((known) => isClose(known, word)).slice(0, 3);
  return new CliError("KIND_UNKNOWN", `nothing is known about "${word}"`, {
    details: { near: close },
    nextSteps:
      close.length > 0
        ? close.map(
            (one) =>
              `cellctl explain ${word.includes(".") ? `${word.slice(0, word.lastIndexOf(".") + 1)}${one}` : one}`,
          )
        : [
            `cellctl explain ${Object.keys(kinds).join(" | ")}`,
            "cellctl explain CODE   (any error code)",
          ],
  });
}

/** Shares a beginning of four letters, or one holds the other. */
function isClose(known: string, word: string): boolean {
  const [a, b] = [known.toLowerCase(), (word.split(".").at(-1) ?? "").toLowerCase()];
  return b.length > 0 && (a.startsWith(b.slice(0, 4)) || a.includes(b));
}
