/**
 * A copy of a running server, taken over the replication protocol: what pg_basebackup does, which the
 * binaries from npm do not bring.
 *
 * What must always be true: nothing of the source is stopped or read from its disk, so it may stand on
 * another machine; what came only in part is an error, never a folder that looks whole. The log that the
 * copy needs is kept for it by a slot, which the caller has made before.
 * https://www.postgresql.org/docs/current/protocol-replication.html (BASE_BACKUP, since version 15)
 */
import { type ChildProcess, spawn } from "node:child_process";
import { access } from "node:fs/promises";
import type { Duplex } from "node:stream";
import pg from "pg";
import { CellError } from "../../contract/errors.ts";
import type { Installation } from "./binaries.ts";
import { identity } from "./command.ts";

export type BackupSource = {
  /** Of a role that may replicate. */
  readonly url: string;
  /** `application_name`: by it the backup is seen, and ended. */
  readonly name: string;
};

/** A word that the types of node-postgres leave out. */
const speakReplication = { replication: "true" };
const connectMsMax = 10_000;
/** Of what `tar` complains about. */
const complaintCharsMax = 2000;

/** Fills an empty folder that belongs to the server's user. Resolves when all of it lies there. */
export async function takeBaseBackup(
  source: BackupSource,
  dataDir: string,
  installation: Installation,
): Promise<void> {
  const client = new pg.Client({
    connectionString: source.url,
    application_name: source.name,
    connectionTimeoutMillis: connectMsMax,
    ...speakReplication,
  });
  client.on("error", () => {}); // The backup under way reports it.
  await client.connect();
  const tar = await unpackInto(dataDir, installation);
  try {
    // Who unpacks may end first, as on a full disk: then nobody takes what comes.
    const sent = sendBackup(client, source.name, tar.input);
    await Promise.race([sent, tar.ended.then(() => sent)]);
    await tar.done();
  } catch (error) {
    tar.process.kill("SIGKILL");
    throw error;
  } finally {
    await client.end().catch(() => {}); // The server may have closed it.
  }
}

type Unpacking = {
  readonly process: ChildProcess;
  readonly input: NodeJS.WritableStream;
  /** Rejects when what came was no whole archive, or could not be kept. */
  readonly ended: Promise<void>;
  /** No more is coming. */
  readonly done: () => Promise<void>;
};

/** As the user who will own the files: no chown of a thousand of them. */
async function unpackInto(dataDir: string, installation: Installation): Promise<Unpacking> {
  const program = (await isThere("/usr/bin/tar")) ? "/usr/bin/tar" : "/bin/tar";
  const child = spawn(program, ["-x", "-f", "-", "-C", dataDir], {
    cwd: "/",
    env: { ...installation.env },
    stdio: ["pipe", "ignore", "pipe"],
    ...identity(installation.runAs),
  });
  const { stdin, stderr } = child;
  let complaint = "";
  stderr.on("data", (chunk: Buffer) => {
    complaint = (complaint + chunk.toString("utf8")).slice(-complaintCharsMax);
  });
  stdin.on("error", () => {}); // It ended early: its exit code says so.
  const ended = new Promise<void>((resolve, reject) => {
    const fail = (why: string) =>
      reject(new CellError("CONFIG_INVALID", `The copy of a server was not unpacked: ${why}`));
    child.once("error", (error) => fail(error.message));
    child.once("close", (code) => (code === 0 ? resolve() : fail(complaint || `code ${code}`)));
  });
  ended.catch(() => {}); // Told to who waits for it.
  return {
    process: child,
    input: stdin,
    ended,
    done: () => {
      stdin.end();
      return ended;
    },
  };
}

const isThere = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );

/** One archive and nothing else: tablespaces of a server that we made lie in its own folder. */
function sendBackup(client: pg.Client, label: string, into: NodeJS.WritableStream): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  let archives = 0;
  let isHeld = false;
  let failure: Error | undefined;
  const fail = (error: Error): void => {
    failure ??= error;
  };
  const take = (chunk: Buffer, connection: Connection): void => {
    const kind = String.fromCharCode(chunk[0] ?? 0);
    if (kind === "n") archives += 1;
    if (archives > 1) fail(new Error("the server has tablespaces outside of its folder"));
    if (kind !== "d" || failure !== undefined) return;
    // A copy: the piece lies in a buffer that the next message is read into.
    if (into.write(Buffer.from(chunk.subarray(1))) || isHeld) return;
    // What arrives faster than a disk takes it stays with the sender.
    isHeld = true;
    connection.stream.pause();
    into.once("drain", () => {
      isHeld = false;
      connection.stream.resume();
    });
  };
  const backup = {
    submit: (connection: Connection) => {
      connection.query(
        `BASE_BACKUP (LABEL '${label.replaceAll("'", "''")}', CHECKPOINT 'fast', WAIT false, MANIFEST 'no')`,
      );
    },
    handleCopyData: ({ chunk }: { readonly chunk: Buffer }, connection: Connection) =>
      take(chunk, connection),
    handleRowDescription: () => {},
    handleDataRow: () => {},
    handleCommandComplete: () => {},
    handleEmptyQuery: () => {},
    handlePortalSuspended: () => {},
    handleError: (error: Error) => {
      fail(error);
      reject(failure);
    },
    handleReadyForQuery: () => {
      if (failure === undefined && archives === 1) resolve();
      else reject(failure ?? new Error("no archive came"));
    },
  };
  client.query(backup as unknown as pg.Submittable);
  client.once("end", () => reject(failure ?? new Error("the source closed the connection")));
  return promise;
}

/** Of node-postgres, as far as its types leave it out. */
type Connection = { readonly query: (text: string) => void; readonly stream: Duplex };
