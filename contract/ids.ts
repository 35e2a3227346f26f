/**
 * Identifiers of the wire, and the only parsers that mint them.
 *
 * Inside the house nobody handles a raw string: a value of a branded type has been through its
 * parser. `as TenantId` and its kin appear in this file only.
 */
import { z } from "zod";

declare const brand: unique symbol;
type Branded<T, Name extends string> = T & { readonly [brand]: Name };

/** The key a request belongs to: a customer, a workspace, a user id. 1 to 128 characters. */
export type TenantId = Branded<string, "TenantId">;
/** One cell of the fleet, such as `cell-01`. Lower case, 1 to 40 characters. */
export type CellId = Branded<string, "CellId">;
/** A named set of tenants with one mapping strategy. Lower case, 1 to 40 characters. */
export type KeyspaceName = Branded<string, "KeyspaceName">;
/** One router process. */
export type RouterId = Branded<string, "RouterId">;
/** One long operation, such as `op_01jd…`. */
export type OpId = Branded<string, "OpId">;
/** Of one placement: raised only when its owner changes, never falls. From 1. */
export type Epoch = Branded<number, "Epoch">;
/** Of the whole routing table: grows with any change. From 0 (an empty table). */
export type Revision = Branded<number, "Revision">;

/*
 * No slash, no quote, no space, no control character: a tenant id can stand in a header, a path
 * segment, a placement key and a log line as it is. Mail addresses and uuids fit.
 */
const tenantPattern = /^[A-Za-z0-9][A-Za-z0-9._~:@+-]{0,127}$/;
const namePattern = /^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$/;
const opPattern = /^op_[a-z0-9]{10,40}$/;

/** In words, for error messages. */
export const tenantIdRule =
  "1 to 128 characters: a letter or digit, then letters, digits or any of . _ ~ : @ + -";
export const nameRule =
  "1 to 40 characters: lower-case letters, digits and dashes, no dash at either end";

export const parseTenantId = (raw: string): TenantId | undefined =>
  tenantPattern.test(raw) ? (raw as TenantId) : undefined;
export const parseCellId = (raw: string): CellId | undefined =>
  namePattern.test(raw) ? (raw as CellId) : undefined;
export const parseKeyspaceName = (raw: string): KeyspaceName | undefined =>
  namePattern.test(raw) ? (raw as KeyspaceName) : undefined;
export const parseRouterId = (raw: string): RouterId | undefined =>
  namePattern.test(raw) ? (raw as RouterId) : undefined;
export const parseOpId = (raw: string): OpId | undefined =>
  opPattern.test(raw) ? (raw as OpId) : undefined;
export const parseEpoch = (raw: number): Epoch | undefined =>
  Number.isSafeInteger(raw) && raw >= 1 ? (raw as Epoch) : undefined;
export const parseRevision = (raw: number): Revision | undefined =>
  Number.isSafeInteger(raw) && raw >= 0 ? (raw as Revision) : undefined;

const branded = <Out, In extends string | number>(
  base: z.ZodType<In, In>,
  parse: (raw: In) => Out | undefined,
  rule: string,
) =>
  base.transform((raw, context): Out => {
    const parsed = parse(raw);
    if (parsed !== undefined) return parsed;
    context.addIssue({ code: "custom", message: `must be ${rule}` });
    return z.NEVER;
  });

/*
 * The pattern stands in the schema too (not only in the transform), so that it is seen in the
 * OpenAPI description and in the golden hash.
 */
export const tenantIdSchema = branded(
  z.string().regex(tenantPattern, `must be ${tenantIdRule}`),
  parseTenantId,
  tenantIdRule,
);
export const cellIdSchema = branded(
  z.string().regex(namePattern, `must be ${nameRule}`),
  parseCellId,
  nameRule,
);
export const keyspaceNameSchema = branded(
  z.string().regex(namePattern, `must be ${nameRule}`),
  parseKeyspaceName,
  nameRule,
);
export const routerIdSchema = branded(
  z.string().regex(namePattern, `must be ${nameRule}`),
  parseRouterId,
  nameRule,
);
export const opIdSchema = branded(
  z.string().regex(opPattern, "must be an operation id"),
  parseOpId,
  "an operation id",
);
export const epochSchema = branded(z.number().int().min(1), parseEpoch, "an integer from 1");
export const revisionSchema = branded(z.number().int().min(0), parseRevision, "an integer from 0");

/** The keyspace of every tenant for which nobody says otherwise. */
export const defaultKeyspace = "default" as KeyspaceName;
/** Before the first change. */
export const revisionZero = 0 as Revision;
/** The epoch of a placement that never had another owner. */
export const epochOne = 1 as Epoch;

/** The epoch after this one; the only way an epoch grows. */
export const nextEpoch = (epoch: Epoch): Epoch => (epoch + 1) as Epoch;
