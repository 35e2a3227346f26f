/**
 * This router's own key pairs: made at its first start, kept in its state folder (mode 0600), and
 * exchanged by age. For a while two are valid, so that no request falls between them.
 *
 * What must always be true: a key is used up only after the table names its successor, so a control plane
 * that is gone delays an exchange and breaks nothing; of several processes on one folder all use the
 * same keys, whoever was first.
 */
import { link, mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import {
  type AnnouncedKey,
  announcedKeySchema,
  announcedKeysMax,
} from "../../contract/router-key.ts";
import { generateKey, keyIdOf } from "../../runtime/signing.ts";

const ownKeySchema = announcedKeySchema.extend({
  pkcs8: z.string().max(400),
  madeAtMs: z.number().int(),
});
export type OwnKey = z.infer<typeof ownKeySchema>;
const fileSchema = z.object({ keys: z.array(ownKeySchema).min(1).max(announcedKeysMax) });

/** The older of two keys stays valid for so long after the newer one was made. */
export const overlapMs = 24 * 3_600_000;
const fileName = "router-keys.json";

/** What becomes of the keys now, newest first. `named`: those that the table names. */
export type KeyStep = "keep" | "make" | "drop-old";
export function decideKeyStep(
  keys: readonly Pick<OwnKey, "id" | "madeAtMs">[],
  named: ReadonlySet<string>,
  nowMs: number,
  ageMsMax: number,
): KeyStep {
  const [newest] = keys;
  if (newest === undefined) return "make";
  // Not known to cells yet: another one would not be either.
  if (!named.has(newest.id)) return "keep";
  if (nowMs - newest.madeAtMs >= ageMsMax) return "make";
  return keys.length > 1 && nowMs - newest.madeAtMs >= overlapMs ? "drop-old" : "keep";
}

/**
 * Which key signs: the newest that cells have heard of. One that the table has named only just is left
 * to spread first. Without any that is named there is nothing better than the newest.
 */
export function chooseKey<Key extends Pick<OwnKey, "id">>(
  keys: readonly Key[],
  namedSinceMs: ReadonlyMap<string, number>,
  nowMs: number,
  spreadMs: number,
): Key | undefined {
  const named = keys.filter(({ id }) => namedSinceMs.has(id));
  const spread = named.find(({ id }) => nowMs - (namedSinceMs.get(id) ?? nowMs) >= spreadMs);
  return spread ?? named.at(-1) ?? keys[0];
}

export const announced = (keys: readonly OwnKey[]): AnnouncedKey[] =>
  keys.map(({ id, spki }) => ({ id, spki }));

export function makeKey(nowMs: number): OwnKey {
  const { privateKey, publicKeys } = generateKey("new");
  const spki = publicKeys.keys[0]?.spki ?? "";
  return { id: keyIdOf(spki), spki, pkcs8: privateKey.pkcs8, madeAtMs: nowMs };
}

/** `unwritten`: what the disk said; then the keys live as long as this process. */
export type OpenedKeys = { readonly keys: readonly OwnKey[]; readonly unwritten: unknown };

/** Those of the folder; at first start, or when the file cannot be read, a new one. */
export async function openOwnKeys(stateDir: string, nowMs: number): Promise<OpenedKeys> {
  const found = await readKeys(stateDir);
  if (found !== undefined) return { keys: found, unwritten: undefined };
  const keys = [makeKey(nowMs)];
  try {
    await mkdir(stateDir, { recursive: true, mode: 0o700 });
    await createFile(stateDir, keys);
    // Another process may have been first.
    return { keys: (await readKeys(stateDir)) ?? keys, unwritten: undefined };
  } catch (error) {
    return { keys, unwritten: error };
  }
}

export async function replaceKeys(stateDir: string, keys: readonly OwnKey[]): Promise<void> {
  const path = join(stateDir, fileName);
  await writeFile(`${path}.new`, `${JSON.stringify({ keys })}\n`, { mode: 0o600, flush: true });
  await rename(`${path}.new`, path);
}

/** Undefined: there is no file, or none that can be used. */
async function readKeys(stateDir: string): Promise<readonly OwnKey[] | undefined> {
  try {
    const text = await readFile(join(stateDir, fileName), "utf8");
    const { keys } = fileSchema.parse(JSON.parse(text));
    return keys.every(({ id, spki }) => id === keyIdOf(spki)) ? keys : undefined;
  } catch {
    return undefined; // A new key costs one announcement; a router without any could not work.
  }
}

/** Whole or not at all, and never over one that can be used. */
async function createFile(stateDir: string, keys: readonly OwnKey[]): Promise<void> {
  const path = join(stateDir, fileName);
  const own = `${path}.${keys[0]?.id}`;
  await writeFile(own, `${JSON.stringify({ keys })}\n`, { mode: 0o600, flush: true });
  try {
    await link(own, path);
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "EEXIST")) throw error;
    if ((await readKeys(stateDir)) === undefined) await rename(own, path);
  } finally {
    await rm(own, { force: true });
  }
}
