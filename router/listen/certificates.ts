/**
 * The certificates of a listener: read from files, kept, and read again. One that is bad is refused,
 * told and counted, and the one before it serves on; a certificate is only forgotten when its files are.
 */
import { readdir, readFile, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { createSecureContext, type SecureContext } from "node:tls";
import { parse } from "yaml";
import { z } from "zod";
import { CellError } from "../../contract/errors.ts";
import type { Clock } from "../../runtime/clock.ts";
import { tlsVersionMin } from "../../runtime/tls/followed.ts";
import { checkPair } from "../../runtime/tls/pair.ts";
import { startReread } from "../../runtime/tls/reread.ts";
import { type CertificateIndex, covers, indexCertificates } from "./certificate-index.ts";

export type Certificate = {
  readonly name: string;
  readonly names: readonly string[];
  readonly notAfterMs: number;
  readonly cert: string;
  readonly key: string;
  readonly context: SecureContext;
};

export type SharedTls = {
  readonly cert?: string;
  readonly key?: string;
  readonly ca?: string;
  readonly minVersion: typeof tlsVersionMin;
  readonly requestCert?: boolean;
  readonly rejectUnauthorized?: boolean;
};

export type Certificates = {
  readonly find: (servername: string | undefined) => Certificate | undefined;
  /** Does the certificate that a handshake with this name gets speak for `host`? */
  readonly covers: (servername: string | undefined, host: string) => boolean;
  /** For connections that name nothing: the default certificate, and what clients must show. */
  readonly shared: () => SharedTls;
  readonly onChange: (changed: () => void) => void;
  readonly list: () => readonly Certificate[];
  readonly reload: () => Promise<void>;
  readonly close: () => Promise<void>;
};

export type CertificatesOptions = {
  readonly clock: Clock;
  /** A folder of NAME.crt and NAME.key, or a list in YAML or JSON. */
  readonly path: string;
  readonly defaultName: string | undefined;
  /** A file; clients must then show a certificate of this authority. */
  readonly clientCa: string | undefined;
  readonly everyMs: number;
  readonly onLoaded: (all: readonly Certificate[]) => void;
  /** A pair, a list or the folder itself. */
  readonly onRefused: (name: string, reason: string) => void;
};

const certificatesMax = 10_000;
const fileBytesMax = 256 * 1024;

type Known = { readonly all: ReadonlyMap<string, Certificate>; readonly ca: string | undefined };

/** Throws CONFIG_INVALID where there is nothing to begin with. */
export async function openCertificates(options: CertificatesOptions): Promise<Certificates> {
  let known: Known = { all: new Map(), ca: undefined };
  let index: CertificateIndex<Certificate> = indexCertificates([], undefined);
  const listeners: Array<() => void> = [];
  const read = async () => {
    const next = await load(options, known);
    if (next === known) return;
    known = next;
    index = indexCertificates([...next.all.values()], options.defaultName);
    options.onLoaded([...next.all.values()]);
    for (const changed of listeners) changed();
  };
  await read();
  const problem = problemAtStart(options, known, index);
  if (problem !== undefined) {
    throw new CellError("CONFIG_INVALID", problem, {
      nextSteps: ["openssl x509 -noout -ext subjectAltName -enddate -in FILE"],
    });
  }
  const { clock, everyMs, path } = options;
  const folder = (await stat(path)).isDirectory() ? path : dirname(path);
  const reread = startReread({ clock, everyMs, read, folders: [folder] });
  return {
    find: (servername) => index.find(servername),
    covers: (servername, host) => {
      const certificate = index.find(servername);
      return certificate !== undefined && covers(certificate, host);
    },
    shared: () => sharedOf(index.byDefault, known.ca),
    onChange: (changed) => listeners.push(changed),
    list: () => [...known.all.values()],
    reload: reread.now,
    close: reread.close,
  };
}

function problemAtStart(
  { path, defaultName, clientCa }: CertificatesOptions,
  known: Known,
  index: CertificateIndex<Certificate>,
): string | undefined {
  if (known.all.size === 0) return `There is no certificate to serve in ${path}.`;
  if (clientCa !== undefined && known.ca === undefined) return `${clientCa} cannot be read.`;
  if (defaultName !== undefined && index.byDefault === undefined) {
    return `There is no certificate ${defaultName} in ${path} to be the default one.`;
  }
  return undefined;
}

const sharedOf = (byDefault: Certificate | undefined, ca: string | undefined): SharedTls => ({
  minVersion: tlsVersionMin,
  ...(byDefault === undefined ? {} : { cert: byDefault.cert, key: byDefault.key }),
  ...(ca === undefined ? {} : { ca, requestCert: true, rejectUnauthorized: true }),
});

/** `before` itself if nothing has changed. */
async function load(options: CertificatesOptions, before: Known): Promise<Known> {
  const ca = await loadAuthority(options, before.ca);
  const files = await findPairs(options);
  if (files === undefined) return ca === before.ca ? before : { ...before, ca };
  const all = new Map<string, Certificate>();
  for (const file of files) {
    const old = ca === before.ca ? before.all.get(file.name) : undefined;
    const certificate = await loadPair(options, file, ca, old);
    const kept = certificate ?? before.all.get(file.name);
    if (kept !== undefined) all.set(file.name, kept);
  }
  if (all.size === 0) return before;
  const isSame =
    ca === before.ca &&
    all.size === before.all.size &&
    [...all].every(([name, one]) => before.all.get(name) === one);
  return isSame ? before : { all, ca };
}

async function loadAuthority(
  { clientCa, onRefused }: CertificatesOptions,
  before: string | undefined,
): Promise<string | undefined> {
  if (clientCa === undefined) return undefined;
  try {
    const ca = await readBounded(clientCa);
    createSecureContext({ ca });
    if (!ca.includes("-----BEGIN CERTIFICATE-----")) throw new Error("it holds no certificate");
    return ca;
  } catch (error) {
    onRefused(basename(clientCa), textOf(error));
    return before;
  }
}

/** Undefined: neither the pair itself nor a change of it is there. */
async function loadPair(
  { clock, onRefused }: CertificatesOptions,
  { name, cert: certFile, key: keyFile }: PairFiles,
  ca: string | undefined,
  old: Certificate | undefined,
): Promise<Certificate | undefined> {
  try {
    const [cert, key] = await Promise.all([readBounded(certFile), readBounded(keyFile)]);
    if (old?.cert === cert && old.key === key) return old;
    const checked = checkPair(cert, key, clock.nowMs());
    if (checked.kind === "bad") throw new Error(checked.reason);
    const { names, notAfterMs } = checked.pair;
    if (names.length === 0) throw new Error("it names no host: subjectAltName is needed");
    const own = ca === undefined ? {} : { ca };
    const context = createSecureContext({ cert, key, minVersion: tlsVersionMin, ...own });
    return { name, names, notAfterMs, cert, key, context };
  } catch (error) {
    onRefused(name, textOf(error));
    return undefined;
  }
}

type PairFiles = { readonly name: string; readonly cert: string; readonly key: string };

const listSchema = z
  .array(
    z.strictObject({
      name: z.string().min(1).max(253),
      cert: z.string().min(1),
      key: z.string().min(1),
    }),
  )
  .max(certificatesMax);

/** Undefined where they cannot be told. */
async function findPairs({
  path,
  onRefused,
}: CertificatesOptions): Promise<readonly PairFiles[] | undefined> {
  try {
    if ((await stat(path)).isDirectory()) return pairsIn(path, await readdir(path));
    const listed = listSchema.safeParse(parse(await readBounded(path)));
    if (!listed.success) throw new Error(z.prettifyError(listed.error));
    const at = (file: string) => resolve(dirname(path), file);
    return listed.data.map(({ name, cert, key }) => ({ name, cert: at(cert), key: at(key) }));
  } catch (error) {
    onRefused(basename(path), textOf(error));
    return undefined;
  }
}

const pairsIn = (folder: string, files: readonly string[]): PairFiles[] =>
  [...new Set(files.flatMap((file) => /^([^.].*)\.(?:crt|key)$/.exec(file)?.[1] ?? []))]
    .sort((one, other) => (one < other ? -1 : 1))
    .slice(0, certificatesMax)
    .map((name) => ({
      name,
      cert: join(folder, `${name}.crt`),
      key: join(folder, `${name}.key`),
    }));

async function readBounded(file: string): Promise<string> {
  const { size } = await stat(file);
  if (size > fileBytesMax) throw new Error(`${file} is larger than ${fileBytesMax} bytes`);
  return readFile(file, "utf8");
}

const textOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
