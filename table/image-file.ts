/**
 * The table as a file that is read straight into memory: ten million tenants in a fraction of a second,
 * where the signed snapshot takes half a minute. It is made here, so the control plane has not signed
 * it; it is sealed with a key of this process instead (`image-key.ts`).
 *
 * What must always be true: not one byte is believed before the seal over all of them has been found to
 * fit. It only ever stands in for the signed files beside it: when it is refused, they are read.
 */
import { createHmac, type Hmac, timingSafeEqual } from "node:crypto";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { crc32 } from "node:zlib";
import type { SharedTable } from "../contract/shared-table.ts";
import { directoryBytes } from "../contract/tenant-base.ts";
import { exists, syncFolder } from "./durable.ts";
import {
  blockBytesOf,
  blocksOf,
  bodyBytesMax,
  crcBytes,
  headerBytesMax,
  headerOf,
  type ImageHeader,
  imageFormat,
  parseHeader,
  parsePrefix,
  prefixBytes,
  prefixOf,
  sealBytes,
  sharedOf,
  trailerBytes,
} from "./image-format.ts";
import type { ImageKey } from "./image-key.ts";

export type ImageProblem = {
  readonly kind: "refused";
  readonly reason: "corrupt" | "unsigned" | "invalid";
  readonly text: string;
};
export type ReadImage =
  | { readonly kind: "image"; readonly shared: SharedTable }
  | { readonly kind: "absent" }
  | ImageProblem;

const refused = (reason: ImageProblem["reason"], text: string): ImageProblem => ({
  kind: "refused",
  reason,
  text,
});

/** At a time: small enough that nobody waits while it is hashed. */
const partBytes = 4 * 1024 * 1024;

/** Beside the old one first; under its name only when all of it is on the disk. */
export async function writeImage(path: string, shared: SharedTable, key: ImageKey): Promise<void> {
  const fresh = `${path}.new`;
  const file = await open(fresh, "w", 0o600);
  try {
    const header = headerOf(shared);
    if (header.length > headerBytesMax) throw new Error(`the header has ${header.length} bytes`);
    const seal = createSeal(key);
    const write = async (bytes: Uint8Array) => {
      seal.add(bytes);
      await writeAll(file, bytes);
    };
    await write(prefixOf(header.length, key.id));
    for (const part of parts(header)) await write(part);
    for (const block of blocksOf(shared)) for (const part of parts(block)) await write(part);
    await writeAll(file, seal.end());
    await file.sync();
  } catch (error) {
    await file.close();
    await rm(fresh, { force: true });
    throw error;
  }
  await file.close();
  await rename(fresh, path);
  await syncFolder(dirname(path));
}

/** Throws only what reading throws. */
export async function readImage(path: string, key: ImageKey): Promise<ReadImage> {
  if (!(await exists(path))) return { kind: "absent" };
  const file = await open(path, "r");
  try {
    return await readFrom(file, key);
  } finally {
    await file.close();
  }
}

async function readFrom(file: FileHandle, key: ImageKey): Promise<ReadImage> {
  const { size } = await file.stat();
  const prefix = Buffer.alloc(prefixBytes);
  if (size < prefixBytes + trailerBytes) return refused("corrupt", "the image is cut off");
  await readAll(file, prefix, 0);
  const start = parsePrefix(prefix);
  if (start.kind === "not-ours") return refused("corrupt", "this is no image of a routing table");
  if (start.kind === "other-format") {
    const text = `the image is of format ${start.format}, this release reads ${imageFormat}`;
    return refused("invalid", text);
  }
  if (!start.keyId.equals(key.id)) {
    return refused("unsigned", "the image was sealed with another token");
  }
  const { headerBytes } = start;
  const bodyBytes = size - prefixBytes - headerBytes - trailerBytes;
  if (bodyBytes < 0) return refused("corrupt", "the image is cut off");
  if (headerBytes > headerBytesMax || bodyBytes > bodyBytesMax) {
    return refused("corrupt", "the image is larger than any table");
  }
  const header = Buffer.alloc(headerBytes);
  // Where a keyspace begins is known from the header, which is not believed yet: one block for all.
  const body = new SharedArrayBuffer(bodyBytes);
  const problem = await readSealed(file, key, [prefix, header, new Uint8Array(body)]);
  return problem ?? imageOf(parseHeader(header), body);
}

/** Reads the parts one behind the other (the first is read already), and compares the trailer. */
async function readSealed(
  file: FileHandle,
  key: ImageKey,
  [prefix, ...rest]: readonly [Uint8Array, ...Uint8Array[]],
): Promise<ImageProblem | undefined> {
  const seal = createSeal(key);
  seal.add(prefix);
  let at = prefix.length;
  for (const bytes of rest) {
    for (const part of parts(bytes)) {
      await readAll(file, part, at);
      seal.add(part);
      at += part.length;
    }
  }
  const trailer = Buffer.alloc(trailerBytes);
  await readAll(file, trailer, at);
  const wanted = seal.end();
  if (timingSafeEqual(trailer, wanted)) return undefined;
  return trailer.subarray(0, crcBytes).equals(wanted.subarray(0, crcBytes))
    ? refused("unsigned", "the seal is not that of this process")
    : refused("corrupt", "the image is damaged: its checksum does not fit");
}

/** What the seal has vouched for; still, an image that does not fit its header would be read beyond its end. */
function imageOf(header: ImageHeader | undefined, body: SharedArrayBuffer): ReadImage {
  if (header === undefined)
    return refused("invalid", "the header is not one that this release writes");
  if (header.keyspaces.some(({ bits, usedBytes }) => usedBytes < directoryBytes(bits))) {
    return refused("invalid", "an image has no directory");
  }
  const blocks: SharedArrayBuffer[] = [];
  let at = 0;
  for (const bytes of blockBytesOf(header)) {
    // Most of it is one keyspace: that one stays where it was read.
    const isMost = at === 0 && bytes * 2 > body.byteLength;
    blocks.push(isMost ? body : body.slice(at, at + bytes));
    at += bytes;
  }
  if (at !== body.byteLength) return refused("invalid", "the images do not fit the header");
  return { kind: "image", shared: sharedOf(header, blocks) };
}

type Seal = { readonly add: (bytes: Uint8Array) => void; readonly end: () => Buffer };

function createSeal({ secret }: ImageKey): Seal {
  const hmac: Hmac = createHmac("sha256", secret);
  let crc = 0;
  return {
    add: (bytes) => {
      crc = crc32(bytes, crc);
      hmac.update(bytes);
    },
    end: () => {
      const trailer = Buffer.alloc(crcBytes + sealBytes);
      trailer.writeUInt32LE(crc, 0);
      hmac.update(trailer.subarray(0, crcBytes));
      hmac.digest().copy(trailer, crcBytes);
      return trailer;
    },
  };
}

function* parts(bytes: Uint8Array): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += partBytes) yield bytes.subarray(at, at + partBytes);
}

async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    done += (await file.write(bytes, done)).bytesWritten;
  }
}

/** A file that became shorter meanwhile leaves zeros, which the seal finds. */
async function readAll(file: FileHandle, into: Uint8Array, from: number): Promise<void> {
  for (let done = 0; done < into.length; ) {
    const { bytesRead } = await file.read(into, done, into.length - done, from + done);
    if (bytesRead === 0) return;
    done += bytesRead;
  }
}
