/**
 * The bytes of a table image (`image-file.ts`): a prefix of fixed size, a header of JSON with all that
 * is small, the images of the tenants as they lie in memory, and a trailer that seals what is before it.
 */
import { z } from "zod";
import { aliasHashSchema } from "../contract/alias.ts";
import { cellIdSchema, epochSchema, revisionSchema, tenantIdSchema } from "../contract/ids.ts";
import type { SharedKeyspace } from "../contract/keyspace-routes.ts";
import { release } from "../contract/release.ts";
import {
  aliasGroupSchema,
  routedKeyspaceSchema,
  routeStates,
  snapshotHeadSchema,
} from "../contract/routing-table.ts";
import type { SharedTable } from "../contract/shared-table.ts";
import { sharedBytes } from "../contract/slot-table.ts";
import { contractVersion } from "../contract/version.ts";
import { must } from "../runtime/assert.ts";
import { parseJson } from "./parse-json.ts";

const magic = Buffer.from("CELLTBL\n", "latin1");
/** Raised with every change of the header, of the images' layout or of what stands in either. */
export const imageFormat = 1;
/** As the processor writes it: an image of a machine with another byte order does not fit. */
const byteOrder = new Uint8Array(Uint32Array.of(0x01020304).buffer);

const formatAt = magic.length;
const orderAt = formatAt + 4;
const headerAt = orderAt + 4;
const keyAt = headerAt + 4;
export const keyIdBytes = 16;
export const prefixBytes = keyAt + keyIdBytes;
/** CRC-32, which tells damage from forgery, and HMAC-SHA256, which finds both. */
export const crcBytes = 4;
export const sealBytes = 32;
export const trailerBytes = crcBytes + sealBytes;
/** Of changes and names; larger than any table of the sizes that were measured. */
export const headerBytesMax = 256 * 1024 * 1024;

/** Places in an image are numbers of 32 bits. */
export const bodyBytesMax = 2 ** 32;

const routeSchema = z.object({
  cell: cellIdSchema,
  epoch: epochSchema,
  state: z.enum(routeStates),
});
const sumSchema = z.tuple([z.number().int(), z.number().int()]);
const countSchema = z.number().int().min(0);
const pairsSchema = z.array(z.tuple([z.string(), routeSchema]));

const maker = `${release}, contract ${contractVersion}`;

const headerSchema = z.object({
  /** Another release may have left out lists that this one knows, or know some that this one does not. */
  madeBy: z.literal(maker),
  head: snapshotHeadSchema.omit({ kind: true, version: true, placements: true, aliases: true }),
  hashKey: z.tuple([z.number().int(), z.number().int()]),
  listsSum: sumSchema,
  sum: sumSchema,
  epochMax: countSchema,
  aliases: z.object({
    sum: sumSchema,
    scopes: z.array(aliasGroupSchema.omit({ names: true })),
    crowded: z.array(z.tuple([aliasHashSchema, countSchema, tenantIdSchema])),
    slots: z.object({
      slots: countSchema,
      size: countSchema,
      used: countSchema,
      garbage: countSchema,
    }),
  }),
  changedOwner: z.array(z.tuple([cellIdSchema, revisionSchema])),
  keyspaces: z.array(
    z.object({
      keyspace: routedKeyspaceSchema,
      slots: pairsSchema,
      ranges: pairsSchema,
      size: countSchema,
      routes: z.array(z.object({ route: routeSchema, count: countSchema }).nullable()),
      changes: z.array(z.tuple([tenantIdSchema, countSchema])),
      bits: z.number().int().min(0).max(24),
      count: countSchema,
      usedBytes: countSchema,
    }),
  ),
});
export type ImageHeader = z.infer<typeof headerSchema>;

export function headerOf(shared: SharedTable): Buffer {
  const { head, hashKey, listsSum, placements, changedOwner } = shared;
  const { sum, epochMax } = placements;
  const keyspaces = placements.keyspaces.map(({ keyspace, slots, ranges, tenants }) => {
    const { size, routes, changes } = tenants;
    const { bits, count, usedBytes } = tenants.image;
    return { keyspace, slots, ranges, size, routes, changes, bits, count, usedBytes };
  });
  const { memory: _, ...slots } = shared.aliases.slots;
  const aliases = { ...shared.aliases, slots };
  return Buffer.from(
    JSON.stringify({
      madeBy: maker,
      head,
      hashKey,
      listsSum,
      sum,
      epochMax,
      aliases,
      changedOwner,
      keyspaces,
    }),
  );
}

export const parseHeader = (bytes: Buffer): ImageHeader | undefined =>
  headerSchema.safeParse(parseJson(bytes.toString("utf8"))).data;

/** How long each block behind the header is: of each keyspace, then of the names of tenants. */
export const blockBytesOf = ({ keyspaces, aliases }: ImageHeader): number[] => [
  ...keyspaces.map(({ usedBytes }) => usedBytes),
  sharedBytes(aliases.slots),
];

/** In the same order. */
export const blocksOf = ({ placements, aliases }: SharedTable): Uint8Array[] => [
  ...placements.keyspaces.map(
    ({ tenants: { image } }) => new Uint8Array(image.memory, 0, image.usedBytes),
  ),
  new Uint8Array(aliases.slots.memory),
];

/** `blocks`: as many as there are lengths. */
export function sharedOf(
  { madeBy: _, sum, epochMax, keyspaces, aliases, ...rest }: ImageHeader,
  blocks: readonly SharedArrayBuffer[],
): SharedTable {
  const block = (nth: number) => must(blocks[nth], "block of an image");
  const shared = keyspaces.map((one, nth): SharedKeyspace => {
    const { keyspace, slots, ranges, size, routes, changes, bits, count, usedBytes } = one;
    const image = { bits, count, usedBytes, memory: block(nth) };
    return { keyspace, slots, ranges, tenants: { size, routes, changes, image } };
  });
  const slots = { ...aliases.slots, memory: block(keyspaces.length) };
  return {
    ...rest,
    placements: { sum, epochMax, keyspaces: shared },
    aliases: { ...aliases, slots },
  };
}

export function prefixOf(headerBytes: number, keyId: Buffer): Buffer {
  const prefix = Buffer.alloc(prefixBytes);
  magic.copy(prefix);
  prefix.writeUInt32LE(imageFormat, formatAt);
  prefix.set(byteOrder, orderAt);
  prefix.writeUInt32LE(headerBytes, headerAt);
  keyId.copy(prefix, keyAt);
  return prefix;
}

export type Prefix =
  | { readonly kind: "prefix"; readonly headerBytes: number; readonly keyId: Buffer }
  | { readonly kind: "not-ours" }
  | { readonly kind: "other-format"; readonly format: number };

export function parsePrefix(bytes: Buffer): Prefix {
  if (bytes.length < prefixBytes || !bytes.subarray(0, magic.length).equals(magic)) {
    return { kind: "not-ours" };
  }
  const format = bytes.readUInt32LE(formatAt);
  const isSameOrder = bytes.subarray(orderAt, headerAt).equals(byteOrder);
  if (format !== imageFormat || !isSameOrder) return { kind: "other-format", format };
  return {
    kind: "prefix",
    headerBytes: bytes.readUInt32LE(headerAt),
    keyId: bytes.subarray(keyAt, prefixBytes),
  };
}
