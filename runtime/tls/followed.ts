/**
 * One end of mutual TLS, from files: its own certificate, and the authority that the other end must
 * come from. Used by routers towards cells and by agents towards routers.
 *
 * What is wrong at the start is CONFIG_INVALID; what goes wrong later is told and the old stays.
 */
import { X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import { dirname } from "node:path";
import { createSecureContext, type SecureContext } from "node:tls";
import { CellError } from "../../contract/errors.ts";
import type { Clock } from "../clock.ts";
import { checkPair } from "./pair.ts";
import { startReread } from "./reread.ts";

export type TlsFiles = {
  readonly ca?: string | undefined;
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
};
export type TlsMaterial = {
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly context: SecureContext;
  /** Of the own certificate. */
  readonly notAfterMs: number | undefined;
};
export type FollowedTls = {
  readonly current: () => TlsMaterial;
  readonly reload: () => Promise<void>;
  readonly close: () => Promise<void>;
};

/** Neither side may fall below it. */
export const tlsVersionMin = "TLSv1.2";

export async function followTls(options: {
  readonly clock: Clock;
  readonly files: TlsFiles;
  readonly everyMs: number;
  readonly onChange?: (material: TlsMaterial) => void;
  readonly onRefused: (reason: string) => void;
}): Promise<FollowedTls> {
  const { clock, files } = options;
  const first = await load(files, clock.nowMs());
  if (typeof first === "string") {
    throw new CellError("CONFIG_INVALID", `TLS cannot be set up: ${first}.`, {
      nextSteps: ["openssl x509 -noout -subject -enddate -in FILE"],
    });
  }
  let current = first;
  const reread = startReread({
    clock,
    everyMs: options.everyMs,
    folders: [files.ca, files.cert, files.key].flatMap((file) =>
      file === undefined ? [] : [dirname(file)],
    ),
    read: async () => {
      const next = await load(files, clock.nowMs());
      if (typeof next === "string") {
        options.onRefused(next);
        return;
      }
      const isSame =
        next.ca === current.ca && next.cert === current.cert && next.key === current.key;
      if (isSame) return;
      current = next;
      options.onChange?.(next);
    },
  });
  return { current: () => current, reload: reread.now, close: reread.close };
}

/** A sentence where it cannot be had. */
async function load(files: TlsFiles, nowMs: number): Promise<TlsMaterial | string> {
  let texts: { ca?: string; cert?: string; key?: string };
  try {
    texts = await readAll(files);
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  const { ca, cert, key } = texts;
  const pair = cert === undefined || key === undefined ? undefined : checkPair(cert, key, nowMs);
  if (pair?.kind === "bad") return `${files.cert}: ${pair.reason}`;
  if (ca !== undefined && !isCertificate(ca)) return `${files.ca}: holds no certificate in PEM`;
  try {
    const context = createSecureContext({ ...texts, minVersion: tlsVersionMin });
    return { ...texts, context, notAfterMs: pair?.pair.notAfterMs };
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

async function readAll(files: TlsFiles) {
  const texts: { ca?: string; cert?: string; key?: string } = {};
  if (files.ca !== undefined) texts.ca = await readFile(files.ca, "utf8");
  if (files.cert !== undefined) texts.cert = await readFile(files.cert, "utf8");
  if (files.key !== undefined) texts.key = await readFile(files.key, "utf8");
  return texts;
}

function isCertificate(pem: string): boolean {
  try {
    return new X509Certificate(pem) !== undefined;
  } catch {
    return false;
  }
}
