/**
 * Gives a copied data folder a system identifier of its own.
 *
 * Two copies of one template would otherwise be the same database to PostgreSQL (a standby of one
 * would accept the WAL of the other) and to our control plane, which tells a cell's incarnations
 * apart by it. `initdb` per cell gives a fresh one too, but costs half a second of CPU and another
 * for the schema; `pg_resetwal`, the official tool, is not in the npm package. What has to change
 * is little: eight bytes and the checksum in `global/pg_control`, and the same eight bytes in the
 * first page header of each WAL segment (page headers have no checksum of their own).
 *
 * The offset of the checksum differs between versions, so it is found: it is where the CRC-32C of
 * all bytes before it stands. If it is not found, the file is not what we think, nothing is
 * written, and the caller runs `initdb` instead. Only for a server that was stopped in order.
 */
import { open, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../../runtime/clock.ts";
import type { Random } from "../../runtime/random.ts";

const identifierBytes = 8;
/** XLogLongPageHeaderData: the identifier follows the 24 bytes of the short header. */
const identifierInWal = 24;
const checksumOffsetMax = 508;

export async function giveNewIdentity(
  dataDir: string,
  { clock, random }: { readonly clock: Clock; readonly random: Random },
): Promise<"done" | "unknown-format"> {
  const controlFile = join(dataDir, "global", "pg_control");
  const control = await readFile(controlFile);
  const before = control.readBigUInt64LE(0);
  const checksumAt = findChecksum(control);
  if (checksumAt === undefined) return "unknown-format";

  // As initdb does: seconds in the upper half, chance in the lower.
  const seconds = BigInt(Math.floor(clock.nowMs() / 1000));
  const identifier = (seconds << 32n) | BigInt(`0x${random.hex(4)}`);
  for (const name of await readdir(join(dataDir, "pg_wal"))) {
    if (/^[0-9A-F]{24}$/.test(name)) {
      await replaceAt(join(dataDir, "pg_wal", name), before, identifier);
    }
  }
  control.writeBigUInt64LE(identifier, 0);
  control.writeUInt32LE(crc32c(control.subarray(0, checksumAt)), checksumAt);
  const file = await open(controlFile, "r+");
  try {
    await file.write(control, 0, control.length, 0);
    await file.sync();
  } finally {
    await file.close();
  }
  return "done";
}

async function replaceAt(segment: string, before: bigint, identifier: bigint): Promise<void> {
  const file = await open(segment, "r+");
  try {
    const bytes = Buffer.alloc(identifierBytes);
    await file.read(bytes, 0, identifierBytes, identifierInWal);
    // A segment made in advance is still zero.
    if (bytes.readBigUInt64LE(0) !== before) return;
    bytes.writeBigUInt64LE(identifier, 0);
    await file.write(bytes, 0, identifierBytes, identifierInWal);
    await file.sync();
  } finally {
    await file.close();
  }
}

function findChecksum(control: Buffer): number | undefined {
  for (let at = identifierBytes; at <= checksumOffsetMax; at += 4) {
    if (crc32c(control.subarray(0, at)) === control.readUInt32LE(at)) return at;
  }
  return undefined;
}

/** CRC-32C (Castagnoli), reflected, as PostgreSQL computes it. */
function crc32c(bytes: Uint8Array): number {
  let crc = 0xff_ff_ff_ff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (0x82_f6_3b_78 & -(crc & 1));
  }
  return ~crc >>> 0;
}
