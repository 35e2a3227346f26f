/**
 * A router between other proxies: the bytes of every case go in at the front, and at the back a strict
 * reader says what arrived. Connections are shared on the way, so a rest of one request would be the
 * beginning of another's; sound requests between and behind the cases find that too.
 */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseRouterConfig } from "../../router/config.ts";
import type { RouterEvents } from "../../router/observe/events.ts";
import { startRouter } from "../../router/run.ts";
import { systemClock } from "../../runtime/clock.ts";
import { createLog } from "../../runtime/log.ts";
import { type Got, openConnection } from "../fuzz/connection.ts";
import { soundRequest } from "../fuzz/grammar.ts";
import { startRecorder } from "../fuzz/recorder.ts";
import { smugglingCases } from "./cases.ts";
import { type PeerKind, startPeer } from "./peer.ts";

export type Chain = {
  readonly before: PeerKind | undefined;
  readonly behind: PeerKind | undefined;
};
export type ChainReport = {
  readonly cases: number;
  readonly carried: number;
  readonly findings: readonly string[];
};

/** So long a case may be without an end: some wait for bytes that never come. */
const caseMs = 700;
const soundPerRound = 20;
const rounds = 2;

export async function tryChain(chain: Chain): Promise<ChainReport> {
  const dir = await mkdtemp(join(tmpdir(), "cellfleet-peers-"));
  const findings: string[] = [];
  const closers: Array<() => Promise<void>> = [() => rm(dir, { recursive: true, force: true })];
  const targets: string[] = [];
  try {
    const recorder = await startRecorder(
      (key) => targets.push(String(JSON.parse(key)[1])),
      (what) => findings.push(`the back was sent ${what}`),
    );
    closers.push(recorder.close);
    const back = Number(new URL(recorder.url).port);
    const behind = chain.behind && (await startPeer(chain.behind, back, dir));
    if (behind !== undefined) closers.push(behind.close);
    const router = await startMiddle(behind?.port ?? back, dir);
    closers.push(router.close);
    const before = chain.before && (await startPeer(chain.before, router.port, dir));
    if (before !== undefined) closers.push(before.close);
    const port = before?.port ?? router.port;
    for (let round = 0; round < rounds; round += 1) {
      await Promise.all([
        ...smugglingCases.map(({ bytes }, nth) =>
          speak(port, bytes.replaceAll("@M@", `${round}-${nth}`)),
        ),
        askSound(port, `during${round}`, findings),
      ]);
      await askSound(port, `behind${round}`, findings);
    }
    judgeTargets(targets, findings);
    return { cases: smugglingCases.length * rounds, carried: targets.length, findings };
  } finally {
    for (const close of closers.reverse()) await close();
  }
}

async function startMiddle(to: number, dir: string) {
  const table = {
    cells: { a: { endpoints: [`http://127.0.0.1:${to}`] } },
    tenants: { acme: "a" },
    tenantKey: [{ header: "x-tenant-id" }, { host: "{tenant}.cells.test" }],
  };
  const file = join(dir, "table.json");
  await writeFile(file, JSON.stringify(table));
  const any = "127.0.0.1:0";
  const flags = { listen: any, admin: any, table: file, accessLog: "off", connectionsMax: 4 };
  const config = parseRouterConfig({
    ...flags,
    drainDelayMs: 0,
    drainAnnounceMs: 0,
    drainMs: 2000,
  });
  const log = createLog<RouterEvents>({
    ...{ clock: systemClock, part: "router", level: "error" },
    write: () => {},
  });
  return startRouter({ config, log, token: "" });
}

async function speak(port: number, bytes: string): Promise<void> {
  const connection = openConnection(port);
  connection.send(bytes);
  await Promise.race([connection.until(() => false), systemClock.sleep(caseMs)]);
  connection.drop();
}

async function askSound(port: number, mark: string, findings: string[]): Promise<void> {
  await Promise.all(
    Array.from({ length: soundPerRound }, async (_, nth) => {
      const name = `sound-${mark}-${nth}`;
      const connection: Got = openConnection(port);
      connection.send(soundRequest(name));
      const own = `["GET","/${name}",["${name}"],""]`;
      if (
        !(await connection.until((text) => text.endsWith(own))) ||
        !connection.text().endsWith(own)
      ) {
        findings.push(`${name} got ${JSON.stringify(connection.text())}`);
      }
      connection.drop();
    }),
  );
}

/** What arrived must have been asked for, and only once. */
function judgeTargets(targets: readonly string[], findings: string[]): void {
  const seen = new Set<string>();
  for (const target of targets) {
    const [, nth] = /^\/[pq]-\d+-(\d+)$/.exec(target) ?? [];
    const { name = "?", asked = 0 } = nth === undefined ? {} : (smugglingCases[Number(nth)] ?? {});
    const isSound = /^\/sound-[a-z]+\d-\d+$/.test(target);
    if (!isSound && (asked === 0 || (target.startsWith("/q") && asked < 2))) {
      findings.push(`${target} arrived, which nobody asked for (${name})`);
    }
    if (seen.has(target)) findings.push(`${target} arrived twice (${name})`);
    seen.add(target);
  }
}
