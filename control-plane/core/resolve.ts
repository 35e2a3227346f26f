/**
 * Which tenant and keyspace a request would be for, by the configured sources, and how that was found:
 * the same rules that routers apply, told one sentence per step for `route resolve`.
 */
import { type TenantSource, tokenSourceName } from "../../contract/tenant-source.ts";

export type Question = {
  readonly tenant: string | undefined;
  readonly keyspace: string | undefined;
  readonly host: string | undefined;
  readonly path: string | undefined;
};
export type Named = {
  readonly tenant: string | undefined;
  readonly keyspace: string | undefined;
  /** Tenants that the only name in the request stands for, when they are several. */
  readonly ambiguous: readonly string[];
  readonly trace: readonly string[];
};

/** A name as it stands in the question, before it is spelled and hashed. */
export type AskedName = { readonly namespace: string; readonly name: string };
export type Owner = { readonly tenant: string; readonly keyspace: string };
/** Whose a name is: nobody's, one tenant's, or several'. */
export type OwnersOf = (asked: AskedName) => readonly Owner[];

/** The names that the question holds, in the order of the sources: whoever decides looks them up first. */
export function namesIn(question: Question, sources: readonly TenantSource[]): AskedName[] {
  if (question.tenant !== undefined) return [];
  return sources.flatMap((source) => {
    const { tenant } = readSource(source, question);
    const { alias } = source;
    return alias === undefined || tenant === undefined ? [] : [{ namespace: alias, name: tenant }];
  });
}

/** A name that nobody has counts as absent; one of several tenants leaves it to the sources after it. */
export function nameTenant(
  question: Question,
  sources: readonly TenantSource[],
  ownersOf: OwnersOf,
): Named {
  if (question.tenant !== undefined) {
    const trace = [`the tenant ${question.tenant} is named`];
    return { tenant: question.tenant, keyspace: question.keyspace, ambiguous: [], trace };
  }
  const trace: string[] = [];
  let ambiguous: readonly string[] = [];
  for (const source of sources) {
    const found = readSource(source, question);
    const judged: Judged =
      source.alias === undefined ? found : judgeName(found, source.alias, ownersOf);
    trace.push(judged.text);
    if (ambiguous.length === 0) ambiguous = judged.ambiguous ?? [];
    if (judged.tenant !== undefined) {
      const keyspace = question.keyspace ?? judged.keyspace ?? source.keyspace;
      return { tenant: judged.tenant, keyspace, ambiguous: [], trace };
    }
  }
  return { tenant: undefined, keyspace: question.keyspace, ambiguous, trace };
}

type Judged = Found & { readonly keyspace?: string; readonly ambiguous?: readonly string[] };

function judgeName(found: Found, namespace: string, ownersOf: OwnersOf): Judged {
  if (found.tenant === undefined) return found;
  const owners = ownersOf({ namespace, name: found.tenant });
  const text = `${found.text}, a name in ${namespace}`;
  const [owner] = owners;
  if (owner === undefined) return { tenant: undefined, text: `${text} that nobody has` };
  if (owners.length === 1) return { ...owner, text: `${text} of ${owner.tenant}` };
  const ambiguous = owners.map(({ tenant }) => tenant);
  return { tenant: undefined, ambiguous, text: `${text} of ${ambiguous.join(", ")}` };
}

type Found = { readonly tenant: string | undefined; readonly text: string };

function readSource(source: TenantSource, question: Question): Found {
  if ("host" in source) return fromPattern("host", source.host, hostName(question.host));
  if ("path" in source) return fromPattern("path", source.path, pathOnly(question.path));
  if ("query" in source) return fromQuery(source.query, question.path);
  if ("jwt" in source) {
    const text = `${tokenSourceName(source.jwt)}: tokens are verified by routers alone, so it counts as absent`;
    return { tenant: undefined, text };
  }
  const name = "header" in source ? `header ${source.header}` : `cookie ${source.cookie}`;
  return { tenant: undefined, text: `${name}: cannot be asked about here, so it counts as absent` };
}

const hostName = (host: string | undefined): string | undefined =>
  host?.toLowerCase().replace(/:\d+$/, "");
const pathOnly = (path: string | undefined): string | undefined => path?.split("?")[0];

function fromPattern(what: string, pattern: string, value: string | undefined): Found {
  if (value === undefined) return { tenant: undefined, text: `${what} ${pattern}: none was given` };
  const [before = "", after = ""] = pattern.split("{tenant}");
  const wanted = what === "host" ? [before.toLowerCase(), after.toLowerCase()] : [before, after];
  const [head = "", tail = ""] = wanted;
  if (!value.startsWith(head))
    return { tenant: undefined, text: `${what} ${pattern}: does not match` };
  const tenant = what === "host" ? hostPart(value, head, tail) : pathPart(value, head, tail);
  return tenant === undefined
    ? { tenant, text: `${what} ${pattern}: does not match` }
    : { tenant, text: `${what} ${pattern}: names ${tenant}` };
}

function hostPart(value: string, head: string, tail: string): string | undefined {
  if (!value.endsWith(tail) || value.length <= head.length + tail.length) return undefined;
  return value.slice(head.length, value.length - tail.length);
}

/** One segment: `{tenant}` of a path never takes a slash. */
function pathPart(value: string, head: string, tail: string): string | undefined {
  const segment = value.slice(head.length).split("/")[0] ?? "";
  const rest = value.slice(head.length + segment.length);
  if (segment === "" || !rest.startsWith(tail)) return undefined;
  try {
    return decodeURIComponent(segment);
  } catch {
    return undefined; // A malformed escape names nobody.
  }
}

function fromQuery(name: string, path: string | undefined): Found {
  const tenant = new URLSearchParams(path?.split("?")[1] ?? "").get(name) ?? undefined;
  return tenant === undefined
    ? { tenant, text: `query ${name}: is absent` }
    : { tenant, text: `query ${name}: names ${tenant}` };
}
