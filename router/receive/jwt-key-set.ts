/**
 * An issuer's public keys, kept in memory: read from the one place that is configured, read again in
 * the background, and kept when that fails. Nothing in a token can name another place.
 *
 * What must always be true: a failure here never takes keys away; requests wait only for a first
 * reading or for one asked by a key nobody knows, and for that at most `waitMs`; a token that names
 * an unknown key makes at most one reading per `cooldownMs`.
 */
import { open, readFile, rename, writeFile } from "node:fs/promises";
import { createLocalJWKSet, type JWTVerifyGetKey } from "jose";
import { Agent, request } from "undici";
import { z } from "zod";
import type { Clock } from "../../runtime/clock.ts";
import { type Loop, startLoop } from "../../runtime/loop.ts";
import type { Random } from "../../runtime/random.ts";

export type KeySetLimits = {
  /** Between two readings in the background. */
  readonly refreshMs: number;
  /** Between two readings that unknown keys ask for. */
  readonly cooldownMs: number;
};

export type KeySetEvent =
  | { readonly kind: "read"; readonly keys: number; readonly changed: boolean }
  | { readonly kind: "restored"; readonly keys: number }
  | { readonly kind: "not-written"; readonly error: unknown }
  /** `first`: of a row of failures. */
  | { readonly kind: "failed"; readonly error: unknown; readonly first: boolean };

export type KeySetOptions = KeySetLimits & {
  /** `file:PATH` or an http(s) URL. */
  readonly location: string;
  /** Where the last good keys are kept; undefined: nowhere. */
  readonly copyFile: string | undefined;
  readonly clock: Clock;
  readonly random: Random;
  readonly onEvent: (event: KeySetEvent) => void;
};

const waitMs = 2000;
const fetchMs = 5000;
const retryMs = 1000;
const retryMsMax = 60_000;
const keysMax = 100;
const bytesMax = 256 * 1024;

/** Public members alone: a private key that was published by mistake is not spread further. */
const publicKeySchema = z.object({
  kty: z.enum(["RSA", "EC", "OKP"]),
  kid: z.string().max(500).optional(),
  use: z.string().max(50).optional(),
  alg: z.string().max(50).optional(),
  key_ops: z.array(z.string().max(50)).max(20).optional(),
  ...{ n: z.string().optional(), e: z.string().optional() },
  ...{ crv: z.string().optional(), x: z.string().optional(), y: z.string().optional() },
});
const listSchema = z.object({ keys: z.array(z.unknown()).max(keysMax) });
const copySchema = z.object({ location: z.string(), keys: z.array(z.unknown()).max(keysMax) });

export class KeySet {
  readonly #options: KeySetOptions;
  readonly #agent: Agent = new Agent({ connections: 1, connectTimeout: 2000, allowH2: false });
  readonly #closing: AbortController = new AbortController();
  #find: JWTVerifyGetKey | undefined;
  /** Of the keys, so that a reading without news changes nothing. */
  #text = "";
  #version = 0;
  #readMs: number | undefined;
  #askedMs = Number.NEGATIVE_INFINITY;
  #restoring: Promise<void> | undefined;
  #reading: Promise<boolean> | undefined;
  #failed = false;
  #loop: Loop | undefined;

  constructor(options: KeySetOptions) {
    this.#options = options;
  }

  /** Another number after each change of the keys. */
  get version(): number {
    return this.#version;
  }
  /** Undefined until there are keys. */
  get find(): JWTVerifyGetKey | undefined {
    return this.#find;
  }
  /** Since the keys were last read from their place; undefined: not since this process began. */
  get ageMs(): number | undefined {
    return this.#readMs === undefined
      ? undefined
      : this.#options.clock.monotonicMs() - this.#readMs;
  }

  /** What the disk has first; then the place itself, in the background. */
  open(): void {
    const { clock, random, refreshMs } = this.#options;
    this.#restoring = this.#restore();
    this.#reading = this.#restoring.then(() => this.#read());
    this.#loop = startLoop({
      ...{ clock, random, intervalMs: retryMs, backoffMaxMs: retryMsMax },
      turn: async () => {
        const age = this.ageMs;
        if (
          this.#reading === undefined &&
          (age === undefined || age >= refreshMs || this.#failed)
        ) {
          this.#reading = this.#read();
        }
        if ((await this.#reading) === false) throw new Error("the keys could not be read");
        return "idle";
      },
      // Told where it happened; the loop only has to come back later each time.
      onError: () => {},
    });
  }

  /** True when there are keys, after waiting a little for the first. */
  async loaded(): Promise<boolean> {
    if (this.#find === undefined) await this.#restoring;
    if (this.#find === undefined) await this.#patiently(this.#reading);
    return this.#find !== undefined;
  }

  /** A token names a key that is not here. True when the keys were read anew and are others now. */
  async refreshed(seenVersion: number): Promise<boolean> {
    const { clock, cooldownMs } = this.#options;
    if (this.#reading === undefined && clock.monotonicMs() - this.#askedMs >= cooldownMs) {
      this.#reading = this.#read();
    }
    await this.#patiently(this.#reading);
    return this.#version !== seenVersion;
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#loop?.close();
    await this.#reading;
    await this.#agent.destroy();
  }

  async #patiently(reading: Promise<unknown> | undefined): Promise<void> {
    if (reading === undefined) return;
    const enough = new AbortController();
    await Promise.race([reading, this.#options.clock.sleep(waitMs, enough.signal)]);
    enough.abort();
  }

  /** Never rejects; false when it failed. */
  async #read(): Promise<boolean> {
    const { clock, location, onEvent } = this.#options;
    this.#askedMs = clock.monotonicMs();
    try {
      const text = location.startsWith("file:")
        ? await readBounded(location.slice("file:".length))
        : await this.#fetch(location);
      const changed = this.#take(listSchema.parse(JSON.parse(text)).keys);
      this.#readMs = clock.monotonicMs();
      this.#failed = false;
      onEvent({ kind: "read", keys: JSON.parse(this.#text).length, changed });
      if (changed) await this.#keepCopy();
      return true;
    } catch (error) {
      if (!this.#closing.signal.aborted) onEvent({ kind: "failed", error, first: !this.#failed });
      this.#failed = true;
      return false;
    } finally {
      this.#reading = undefined;
    }
  }

  /** Throws when not one key can be used. */
  #take(raw: readonly unknown[]): boolean {
    const keys = raw.flatMap((one) => publicKeySchema.safeParse(one).data ?? []);
    if (keys.length === 0) throw new Error("there is no public key in the list");
    const text = JSON.stringify(keys);
    if (text === this.#text) return false;
    this.#find = createLocalJWKSet({ keys: JSON.parse(text) });
    this.#text = text;
    this.#version += 1;
    return true;
  }

  /** Redirects are not followed: the configured address is the only one. */
  async #fetch(url: string): Promise<string> {
    const signal = AbortSignal.any([this.#closing.signal, AbortSignal.timeout(fetchMs)]);
    const { statusCode, body } = await request(url, {
      ...{ dispatcher: this.#agent, signal, headersTimeout: fetchMs, bodyTimeout: fetchMs },
      headers: { accept: "application/jwk-set+json, application/json" },
    });
    if (statusCode !== 200) {
      body.on("error", () => {}).destroy();
      throw new Error(`the answer is ${statusCode}`);
    }
    const chunks: Buffer[] = [];
    let bytes = 0;
    for await (const chunk of body) {
      bytes += chunk.length;
      if (bytes > bytesMax) throw new Error(`the list is larger than ${bytesMax} bytes`);
      chunks.push(chunk);
    }
    return Buffer.concat(chunks).toString("utf8");
  }

  async #restore(): Promise<void> {
    const { copyFile, location, onEvent } = this.#options;
    if (copyFile === undefined) return;
    try {
      const copy = copySchema.parse(JSON.parse(await readBounded(copyFile)));
      if (copy.location === location && this.#take(copy.keys)) {
        onEvent({ kind: "restored", keys: copy.keys.length });
      }
    } catch {
      // None yet, or damaged: it only saves the wait for the place itself, which is asked next.
    }
  }

  async #keepCopy(): Promise<void> {
    const { copyFile, location, random, onEvent } = this.#options;
    if (copyFile === undefined) return;
    // Several threads of a router keep the same copy.
    const own = `${copyFile}.${random.hex(4)}`;
    try {
      const copy = JSON.stringify({ location, keys: JSON.parse(this.#text) });
      await writeFile(own, `${copy}\n`, { mode: 0o600 });
      await rename(own, copyFile);
    } catch (error) {
      onEvent({ kind: "not-written", error });
    }
  }
}

async function readBounded(path: string): Promise<string> {
  const file = await open(path, "r");
  try {
    const { size } = await file.stat();
    if (size > bytesMax) throw new Error(`the file is larger than ${bytesMax} bytes`);
    return await readFile(file, "utf8");
  } finally {
    await file.close();
  }
}
