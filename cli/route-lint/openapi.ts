/**
 * The endpoints of an OpenAPI 3 document, as far as they say where a request carries what. The document is
 * a stranger's: whatever does not have the expected form is passed over or named, never followed out
 * of the document.
 */
import { z } from "zod";

export const methods = [
  "get",
  "put",
  "post",
  "delete",
  "options",
  "head",
  "patch",
  "trace",
] as const;

/** Where a request carries a value, and whether it must. */
export type Carried = {
  readonly in: "header" | "query" | "cookie" | "bearer";
  /** Of a bearer token: empty. */
  readonly name: string;
  readonly required: boolean;
};

export type ApiEndpoint = {
  readonly id: string;
  readonly method: string;
  /** With the path of the server before it: `/v1/orders/{id}`. */
  readonly path: string;
  /** Lower case, with `{variables}` as they stand there; undefined: the document does not say. */
  readonly host: string | undefined;
  readonly carries: readonly Carried[];
};

const record = z.record(z.string(), z.unknown());
const asRecord = (value: unknown): Readonly<Record<string, unknown>> =>
  record.safeParse(value).data ?? {};
const asList = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);
const asText = (value: unknown): string | undefined =>
  typeof value === "string" ? value : undefined;

const refStepsMax = 16;

/** Undefined: it is no OpenAPI 3 document. */
export function readEndpoints(document: unknown): readonly ApiEndpoint[] | undefined {
  const root = asRecord(document);
  if (!(asText(root["openapi"]) ?? "").startsWith("3.")) return undefined;
  return Object.entries(asRecord(root["paths"])).flatMap(([template, raw]) => {
    const item = asRecord(resolveRef(root, raw));
    return methods
      .filter((method) => Object.hasOwn(item, method))
      .flatMap((method) => endpointsOf(root, template, item, method));
  });
}

function endpointsOf(
  root: Readonly<Record<string, unknown>>,
  template: string,
  item: Readonly<Record<string, unknown>>,
  method: string,
): ApiEndpoint[] {
  const operation = asRecord(item[method]);
  const servers = [operation, item, root].map((from) => asList(from["servers"]));
  const urls = (servers.find((list) => list.length > 0) ?? [])
    .map((server) => asText(asRecord(server)["url"]))
    .filter((url) => url !== undefined);
  const carries = [
    ...parametersOf(root, [...asList(item["parameters"]), ...asList(operation["parameters"])]),
    ...credentialsOf(root, operation["security"] ?? root["security"]),
  ];
  // One endpoint of each server, because a tenant may stand in the host or in front of the path.
  return (urls.length === 0 ? ["/"] : urls).map((url) => {
    const { host, base } = splitServer(url);
    const path = `${base}${template}`;
    return { id: `${method.toUpperCase()} ${host ?? ""}${path}`, method, path, host, carries };
  });
}

/** `https://{tenant}.example.com/api` is no URL yet: variables stand in it. */
function splitServer(url: string): { readonly host: string | undefined; readonly base: string } {
  const [, host, rest = ""] = /^[a-z][a-z0-9+.-]*:\/\/([^/]*)(.*)$/i.exec(url) ?? [];
  const base = (host === undefined ? url : rest).replace(/\/+$/, "");
  return { host: host?.toLowerCase().replace(/:\d+$/, ""), base };
}

/** Those of the operation are behind those of its path, and take their place. */
function parametersOf(
  root: Readonly<Record<string, unknown>>,
  list: readonly unknown[],
): Carried[] {
  const found = new Map<string, Carried>();
  for (const raw of list) {
    const parameter = asRecord(resolveRef(root, raw));
    const where = z.enum(["header", "query", "cookie"]).safeParse(parameter["in"]).data;
    const name = asText(parameter["name"]);
    if (where === undefined || name === undefined) continue;
    found.set(`${where} ${name}`, { in: where, name, required: parameter["required"] === true });
  }
  return [...found.values()];
}

/** Alternatives: what stands in all of them is carried by every request. */
function credentialsOf(root: Readonly<Record<string, unknown>>, security: unknown): Carried[] {
  const schemes = asRecord(asRecord(root["components"])["securitySchemes"]);
  const ways = asList(security).map((way) =>
    Object.keys(asRecord(way)).flatMap((name) => carriedBy(resolveRef(root, schemes[name]))),
  );
  const all = new Map(ways.flat().map((one) => [`${one.in} ${one.name}`, one]));
  return [...all].map(([key, one]) => ({
    ...one,
    required: ways.every((way) => way.some((other) => `${other.in} ${other.name}` === key)),
  }));
}

function carriedBy(raw: unknown): Carried[] {
  const scheme = asRecord(raw);
  const type = asText(scheme["type"]);
  const where = z.enum(["header", "query", "cookie"]).safeParse(scheme["in"]).data;
  const name = asText(scheme["name"]);
  if (type === "apiKey" && where !== undefined && name !== undefined) {
    return [{ in: where, name, required: true }];
  }
  const isBearer = type === "http" && asText(scheme["scheme"])?.toLowerCase() === "bearer";
  const isToken = isBearer || type === "oauth2" || type === "openIdConnect";
  return isToken ? [{ in: "bearer", name: "", required: true }] : [];
}

/** Within the document alone; what leads nowhere or round in circles is nothing. */
function resolveRef(root: Readonly<Record<string, unknown>>, raw: unknown): unknown {
  let value = raw;
  for (let step = 0; step < refStepsMax; step += 1) {
    const ref = asText(asRecord(value)["$ref"]);
    if (ref === undefined) return value;
    if (!ref.startsWith("#/")) return undefined;
    value = ref
      .slice(2)
      .split("/")
      .map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"))
      .reduce<unknown>((from, part) => {
        const holder = asRecord(from);
        return Object.hasOwn(holder, part) ? holder[part] : undefined;
      }, root);
  }
  return undefined;
}
