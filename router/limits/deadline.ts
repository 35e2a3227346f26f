/**
 * How long an answer may take: what the client asks for, what its route allows and what the router allows
 * in general; the least of them wins, and the cell is told what is left of it. What a client says is
 * hostile: read strictly, capped, refused when it is nonsense.
 *
 * A deadline binds everything from the request's head to the answer's head: hold, queues, both attempts.
 */
import { filterHeaders, type RawHeaders } from "../../contract/raw-headers.ts";

/**
 * Milliseconds since 1970, by a clock that agrees with ours. A value below one day can be no such time: it is
 * taken as milliseconds that are left.
 */
export const deadlineHeader = "x-request-deadline";
/** Milliseconds that are left: for clients whose clock nobody sets. */
export const timeoutHeader = "x-request-timeout-ms";
/** Of gRPC: up to 8 digits and a unit. */
export const grpcTimeoutHeader = "grpc-timeout";

const dayMs = 86_400_000;
/** A client that asks for more gets this. */
const clientMsMax = 3_600_000;

export type ClientDeadline =
  /** Undefined: the client asks for nothing. */
  | { readonly kind: "ok"; readonly leftMs: number | undefined; readonly grpc: boolean }
  | { readonly kind: "refused"; readonly message: string };
const nothing: ClientDeadline & { readonly kind: "ok" } = {
  kind: "ok",
  leftMs: undefined,
  grpc: false,
};

/** `nowMs`: the wall clock. */
export function readClientDeadline(raw: RawHeaders, nowMs: number): ClientDeadline {
  let found = nothing;
  let seen = "";
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const name = nameOf(raw[at] ?? "");
    if (name === undefined) continue;
    if (seen.includes(name)) return refused(name, "is there twice");
    seen += `${name} `;
    const leftMs = readers[name](raw[at + 1] ?? "", nowMs);
    if (leftMs === undefined) return refused(name, rules[name]);
    found = {
      kind: "ok",
      leftMs: Math.min(found.leftMs ?? clientMsMax, Math.max(0, leftMs)),
      grpc: found.grpc || name === grpcTimeoutHeader,
    };
  }
  return found;
}

type Name = typeof deadlineHeader | typeof timeoutHeader | typeof grpcTimeoutHeader;

/** By the length first: nearly no header has it. */
function nameOf(said: string): Name | undefined {
  switch (said.length) {
    case deadlineHeader.length:
      return said.toLowerCase() === deadlineHeader ? deadlineHeader : undefined;
    case timeoutHeader.length:
      return said.toLowerCase() === timeoutHeader ? timeoutHeader : undefined;
    case grpcTimeoutHeader.length:
      return said.toLowerCase() === grpcTimeoutHeader ? grpcTimeoutHeader : undefined;
    default:
      return undefined;
  }
}

const unitMs: Readonly<Record<string, number>> = {
  H: 3_600_000,
  M: 60_000,
  S: 1000,
  m: 1,
  u: 0.001,
  n: 0.000_001,
};

const readers: Readonly<Record<Name, (value: string, nowMs: number) => number | undefined>> = {
  [deadlineHeader]: (value, nowMs) => {
    if (!/^\d{1,15}$/.test(value)) return undefined;
    const ms = Number(value);
    return ms < dayMs ? ms : ms - nowMs;
  },
  [timeoutHeader]: (value) => (/^\d{1,9}$/.test(value) ? Number(value) : undefined),
  [grpcTimeoutHeader]: (value) => {
    const match = /^(\d{1,8})([HMSmun])$/.exec(value);
    return match === null ? undefined : Number(match[1]) * (unitMs[match[2] ?? ""] ?? 0);
  },
};

const rules: Readonly<Record<Name, string>> = {
  [deadlineHeader]: "must be milliseconds since 1970",
  [timeoutHeader]: "must be milliseconds that are left, up to 9 digits",
  [grpcTimeoutHeader]: "must be up to 8 digits and one of H, M, S, m, u, n",
};

const refused = (name: Name, why: string): ClientDeadline => ({
  kind: "refused",
  message: `The header ${name} ${why}.`,
});

/** The least of what there is, 0 meaning nothing said by the router. */
export function leastDeadline(
  clientMs: number | undefined,
  routeMs: number | undefined,
  routerMs: number,
): number | undefined {
  const least = Math.min(clientMs ?? Infinity, routeMs ?? Infinity, routerMs || Infinity);
  return least === Infinity ? undefined : least;
}

/** What the cell is told, in whole milliseconds; it is never told more than there is. */
export function deadlineHeaders(leftMs: number, nowMs: number, grpc: boolean): string[] {
  const left = Math.max(0, Math.floor(leftMs));
  const own = [deadlineHeader, String(Math.floor(nowMs) + left), timeoutHeader, String(left)];
  if (grpc) own.push(grpcTimeoutHeader, `${left}m`);
  return own;
}

export const withoutDeadline = (raw: RawHeaders): string[] =>
  filterHeaders(raw, (name) => nameOf(name) === undefined);
