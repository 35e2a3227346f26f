/** `cellctl claim …`: unique names of tenants. The fleet keeps their hashes; a name is sent, never shown. */
import type { Command } from "commander";
import {
  claimCardinalities,
  claimCheckSchema,
  claimNamespaceSchema,
  claimSchema,
  claimSecondsMax,
  reservedSchema,
} from "../../contract/claims-api.ts";
import { dryRunSchema } from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import { type ClaimName, readClaimName } from "../claim-name.ts";
import { usage } from "../failures.ts";
import { type Bind, flag, mutation, type Options, type Register, text } from "../grammar.ts";
import { parseLimit } from "../limit.ts";
import { mutate, nextSteps, sendChange } from "../mutate.ts";
import { parseDuration } from "../render/units.ts";
import { claimCheckView, claimView, namespaceView, reservedView } from "../render/views-claim.ts";
import { planView } from "../render/views-op.ts";
import type { Session } from "../session.ts";

const nameHelp = `
A name is NAMESPACE:NAME, such as domain:shop.example or email:ada@example.org.
With - for the name it is read from standard input: cellctl claim check api-key:- < key`;

export const register: Register = (noun, bind) => {
  noun.addHelpText("after", nameHelp);
  looking(noun, bind);
  changing(noun, bind);
  namespaces(noun, bind);
};

function looking(noun: Command, bind: Bind): void {
  bind(
    noun
      .command("ls")
      .description("list names, as hashes")
      .option("--tenant <tenant>", "only those of this tenant")
      .option("--namespace <namespace>", "only those of this kind")
      .option("--keyspace <keyspace>", "only of tenants of this keyspace")
      .option("--limit <rows>", "at most this many (default: all)"),
    async (session, _args, options) => {
      const query = {
        tenant: text(options, "tenant"),
        namespace: text(options, "namespace"),
        keyspace: text(options, "keyspace"),
      };
      const api = await session.api();
      const limit = parseLimit(options);
      await session.out.list(api.pages("/v1/claims", claimSchema, { query, limit }), claimView);
      return 0;
    },
  );
  bind(noun.command("get <name>").description("whose a name is"), async (session, [raw = ""]) => {
    const name = await readClaimName(session, raw);
    const { taken, claims } = await check(session, name);
    if (!taken) {
      throw new CellError("CLAIM_UNKNOWN", `nobody has claimed this name of ${name.namespace}`, {
        nextSteps: [`cellctl claim reserve ${name.namespace}:NAME --tenant TENANT`],
      });
    }
    if (claims === undefined) {
      throw new CellError("FORBIDDEN", "the name is taken; whose it is, operators may know");
    }
    await session.out.list(onePage(claims), claimView);
    return 0;
  });
  bind(noun.command("check <name>").description("is a name free?"), async (session, [raw = ""]) => {
    await session.out.one(await check(session, await readClaimName(session, raw)), claimCheckView);
    return 0;
  });
}

async function* onePage<T>(items: readonly T[]) {
  yield { items, next: null };
}

async function check(session: Session, name: ClaimName) {
  const api = await session.api();
  const idempotencyKey = session.io.random.uuid();
  // Asks and changes nothing: a POST, so that no log of addresses holds the name.
  return api.send("POST", "/v1/claims/check", {
    body: name,
    schema: claimCheckSchema,
    idempotencyKey,
  });
}

function changing(noun: Command, bind: Bind): void {
  bind(
    mutation(
      noun
        .command("reserve <name>")
        .description("reserve a name for a tenant; commit it in time, or it is free again")
        .requiredOption("--tenant <tenant>", "for this tenant")
        .option("--keyspace <keyspace>", "of this keyspace (default: where it is registered)")
        .option("--ttl <time>", "for this long, such as 10m (the default) or 24h (the most)"),
    ),
    reserve,
  );
  bind(
    mutation(
      noun
        .command("commit <reservation>")
        .description("make a reservation final, and let routers find the tenant by it"),
    ),
    (session, [reservation = ""], options) =>
      mutate(session, options, { path: "/v1/claims/commit", body: { reservation } }),
  );
  bind(
    mutation(
      noun
        .command("release [name]")
        .description("give a name back, or a reservation")
        .option("--tenant <tenant>", "of this tenant")
        .option("--keyspace <keyspace>", "of this keyspace (default: where it is registered)")
        .option("--reservation <id>", "this reservation, instead of a name"),
    ),
    release,
  );
  bind(
    mutation(
      noun
        .command("import <file>")
        .description("commit many names from NDJSON (- reads standard input)")
        .addHelpText("after", importHelp),
    ),
    async (session, [file = ""], options) => {
      const { importClaims } = await import("../import-claims.ts");
      return importClaims(session, file, options);
    },
  );
}

const importHelp = `
Each line is one name; a name that its tenant has already is no mistake:
  {"namespace":"email","value":"ada@example.org","tenant":"acme"}`;

async function reserve(
  session: Session,
  [raw = ""]: readonly string[],
  options: Options,
): Promise<number> {
  const body = { ...(await owned(session, raw, options)), ...ttlOf(options) };
  const change = { path: "/v1/claims/reserve", body };
  if (flag(options, "dryRun")) {
    await session.out.one(await sendChange(session, options, change, dryRunSchema), planView);
    return 0;
  }
  const answer = await sendChange(session, options, change, reservedSchema);
  await session.out.one(answer, reservedView);
  await nextSteps(session, answer.next_steps);
  return 0;
}

async function release(
  session: Session,
  [raw]: readonly string[],
  options: Options,
): Promise<number> {
  const reservation = text(options, "reservation");
  if ((raw === undefined) === (reservation === undefined)) {
    throw usage("name what to release: NAMESPACE:NAME with --tenant, or --reservation ID");
  }
  const body =
    raw === undefined ? { reservation } : await owned(session, raw, requireTenant(options));
  return mutate(session, options, { path: "/v1/claims/release", body });
}

function requireTenant(options: Options): Options {
  if (text(options, "tenant") !== undefined) return options;
  throw usage("--tenant says whose name it is; nothing else is released by mistake then");
}

async function owned(session: Session, raw: string, options: Options) {
  const keyspace = text(options, "keyspace");
  return {
    ...(await readClaimName(session, raw)),
    tenant: text(options, "tenant"),
    ...(keyspace === undefined ? {} : { keyspace }),
  };
}

function ttlOf(options: Options): { ttlSeconds?: number } {
  const raw = text(options, "ttl");
  if (raw === undefined) return {};
  const seconds = (parseDuration(raw) ?? 0) / 1000;
  if (seconds < 1 || seconds > claimSecondsMax) {
    throw usage(`--ttl "${raw}": must be a time from 1s to 24h, such as 10m`);
  }
  return { ttlSeconds: Math.floor(seconds) };
}

function namespaces(noun: Command, bind: Bind): void {
  const kinds = noun.command("namespaces").description("the kinds of names");
  bind(kinds, async (session) => {
    const api = await session.api();
    await session.out.list(api.pages("/v1/claim-namespaces", claimNamespaceSchema), namespaceView);
    return 0;
  });
  bind(
    mutation(
      kinds
        .command("add <namespace>")
        .description("add a kind of names; it never changes afterwards")
        .requiredOption("--cardinality <how-many>", "one or many: tenants that may have a name")
        .option("--fold", "upper and lower case are the same name")
        .option("--routed", "routers find tenants by these names"),
    ),
    async (session, [name = ""], options) => {
      const cardinality = text(options, "cardinality") ?? "";
      if (!(claimCardinalities as readonly string[]).includes(cardinality)) {
        throw usage(`--cardinality "${cardinality}": must be one or many`);
      }
      const body = {
        ...{ name, cardinality },
        fold: flag(options, "fold"),
        routed: flag(options, "routed"),
      };
      return mutate(session, options, { path: "/v1/claim-namespaces", body });
    },
  );
}
