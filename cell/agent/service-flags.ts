/**
 * Which services this agent stands in front of, from `--upstream`, `--health` and `--replica`: pure.
 *
 * Each flag may name its service (`api=http://…`); without a name the service is `default`. Several
 * URLs of one service are instances of it, and balanced.
 */
import { defaultService } from "../../contract/service-route.ts";
import { parseSecretRef, secretRefRule } from "../../runtime/secret-ref.ts";

export type ReplicaConfig = {
  /** An instance of the service that reads from a physical replica. */
  readonly url: string;
  /** Reference to the replica's database. */
  readonly database: string;
};

export type ServiceConfig = {
  readonly name: string;
  /** GET there; undefined asks for `/livez`. */
  readonly health: string | undefined;
  /** At least one. */
  readonly upstreams: readonly string[];
  readonly replicas: readonly ReplicaConfig[];
};

export type ServiceFlags = {
  readonly upstream: readonly string[];
  readonly health: readonly string[];
  readonly replica: readonly string[];
};

type Draft = { health: string | undefined; upstreams: string[]; replicas: ReplicaConfig[] };

const named = /^([A-Za-z0-9][A-Za-z0-9._-]{0,39})=(.*)$/s;
const instancesMax = 64;

/** The services in the order in which they were first named, or every problem with its flag. */
export function parseServices(
  flags: ServiceFlags,
): { readonly services: readonly ServiceConfig[] } | { readonly problems: readonly string[] } {
  const drafts = new Map<string, Draft>();
  const problems = [
    ...flags.upstream.map((raw) => addUpstream(drafts, raw)),
    ...flags.health.map((raw) => setHealth(drafts, raw)),
    ...flags.replica.map((raw) => addReplica(drafts, raw)),
    drafts.size === 0 ? "--upstream: is required" : undefined,
  ].filter((problem) => problem !== undefined);
  if (problems.length > 0) return { problems };
  return { services: [...drafts].map(([name, draft]) => ({ name, ...draft })) };
}

function addUpstream(drafts: Map<string, Draft>, raw: string): string | undefined {
  const [name, url] = splitName(raw);
  if (!isPlainHttp(url)) return "--upstream: must be [NAME=]http://HOST:PORT";
  const draft = drafts.get(name) ?? { health: undefined, upstreams: [], replicas: [] };
  drafts.set(name, draft);
  if (draft.upstreams.includes(url)) return `--upstream: ${url} is named twice`;
  if (draft.upstreams.length >= instancesMax) {
    return `--upstream: a service has at most ${instancesMax} instances`;
  }
  draft.upstreams.push(url);
  return undefined;
}

function setHealth(drafts: ReadonlyMap<string, Draft>, raw: string): string | undefined {
  const [name, path] = splitName(raw);
  if (!/^\/[\x21-\x7e]*$/.test(path)) return "--health: must be [NAME=]/PATH";
  const draft = drafts.get(name);
  if (draft === undefined) return `--health: no --upstream is of service ${name}`;
  draft.health = path;
  return undefined;
}

function addReplica(drafts: ReadonlyMap<string, Draft>, raw: string): string | undefined {
  const [name, rest] = splitName(raw);
  const replica = parseReplica(rest);
  if (replica === undefined) {
    return `--replica: must be [NAME=]http://HOST:PORT,REF, where REF is ${secretRefRule}`;
  }
  const draft = drafts.get(name);
  if (draft === undefined) return `--replica: no --upstream is of service ${name}`;
  draft.replicas.push(replica);
  return undefined;
}

/** A URL may hold `=` too, but never before its colon. */
function splitName(raw: string): readonly [string, string] {
  const [, name, rest] = named.exec(raw) ?? [];
  return name === undefined ? [defaultService, raw] : [name, rest ?? ""];
}

function parseReplica(raw: string): ReplicaConfig | undefined {
  const comma = raw.indexOf(",");
  const url = raw.slice(0, comma);
  const database = raw.slice(comma + 1);
  if (comma < 0 || !isPlainHttp(url) || parseSecretRef(database) === undefined) return undefined;
  return { url, database };
}

/** The application stands beside its agent: TLS between them would only be in the way. */
function isPlainHttp(raw: string): boolean {
  const url = URL.parse(raw);
  return url?.protocol === "http:" && url.hostname !== "" && url.search === "" && url.hash === "";
}
