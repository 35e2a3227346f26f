/**
 * A physical standby between two cells of this machine, from nothing to nothing: real servers, agents and
 * application, steered as the control plane steers them.
 */
import { access, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { afterAll, beforeAll, describe, type ExpectStatic, test } from "vitest";
import { headers } from "../contract/headers.ts";
import { type CellId, parseCellId } from "../contract/ids.ts";
import type { ProvidedCell } from "../contract/provider-api.ts";
import { standbyServers } from "../control-plane/work/standby/servers.ts";
import { eventually, never } from "../moving/streams.fixture.ts";
import { must } from "../runtime/assert.ts";
import { systemClock } from "../runtime/clock.ts";
import { systemRandom } from "../runtime/random.ts";
import { createStandby } from "../standby/kinds.ts";
import type { StandbyPair, StandbyProvider } from "../standby/ports.ts";
import { type LocalCells, openCells } from "./cell-processes.ts";
import { type DataFolder, openDataFolder } from "./data-folder.ts";
import { keepSigningKey } from "./fleet-units.ts";
import { findPostgres, type Installation } from "./postgres/binaries.ts";
import { sampleApplication } from "./sample-application.ts";

const id = (text: string): CellId => must(parseCellId(text), "a cell id");
const origin = id("cell-01");
const host = id("cell-02");
const annex = id("sb-cell-01-cell-02");

let root: string;
let folder: DataFolder;
let installation: Installation;
let cells: LocalCells;
let provider: StandbyProvider;

const open = async () =>
  openCells({
    folder,
    tools: { installation, clock: systemClock, random: systemRandom },
    // Nobody there: cells and annexes start and live without a control plane.
    application: await sampleApplication(),
    controlPlaneUrl: "http://127.0.0.1:9",
    env: { PATH: process.env["PATH"] ?? "" },
    onChange: () => {},
  });

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "cellfleet-physical-"));
  installation = await findPostgres({ env: process.env, random: systemRandom });
  folder = await openDataFolder(root, installation.runAs, systemRandom);
  await keepSigningKey(folder);
  cells = await open();
  await Promise.all(
    [origin, host].map((cell) => cells.act(cell, "create", { agentToken: `token-${cell}` })),
  );
  await cells.wakeAnnexes();
  const act = (cell: string, action: "copy" | "settle") => cells.act(id(cell), action);
  provider = createStandby({
    clock: systemClock,
    // As over the wire, without it.
    servers: standbyServers({ act: (cell, action) => act(cell, action as "copy") }),
  });
});
afterAll(async () => {
  await provider?.close();
  await cells?.stopAll();
  await rm(root, { recursive: true, force: true });
});

/** As a supervisor that starts again; what the one before still runs it would have ended first. */
async function openAgain(): Promise<void> {
  await cells.stopAll();
  cells = await open();
}

const urlAt = async (reference: string | undefined): Promise<string> =>
  (await readFile(must(reference, "a reference").replace("file:", ""), "utf8")).trim();

/** As the control plane builds it before each call. */
async function pairNow(): Promise<StandbyPair> {
  const [from, to] = [cells.describe(origin), cells.describe(annex)].map(({ stores }) => stores);
  return {
    ...{ annex, origin, host, kind: "physical", buckets: { lo: 0, hi: 255 }, keyspaces: [] },
    stores: [
      {
        name: "default",
        origin: { cell: origin, store: "default", url: await urlAt(from?.["default"]?.mover) },
        annex: { cell: annex, store: "default", url: await urlAt(to?.["default"]?.mover) },
      },
    ],
  };
}

async function query(url: string, text: string): Promise<Array<Record<string, unknown>>> {
  const client = new pg.Client(url);
  client.on("error", () => {});
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(text)).rows;
  } finally {
    await client.end();
  }
}
async function asSuperuser(cell: CellId, text: string, database = "app") {
  const password = await readFile(join(folder.databases, "cells", cell, "password"), "utf8");
  const { port } = new URL(must(cells.logins(cell), "logins").app);
  return query(`postgres://postgres:${password.trim()}@127.0.0.1:${port}/${database}`, text);
}
const atStandby = async (text: string) => {
  const [store] = (await pairNow()).stores;
  return query(must(store, "a store").annex.url, text);
};
const inStep = () =>
  eventually("in step", async () => {
    const { phase, reason } = await provider.status(await pairNow());
    if (phase === "stopped") throw new Error(reason);
    return phase === "streaming";
  });
const desk = "app__sb_cell_01_cell_02";
const names = () => cells.units().map((unit) => unit.name);

/** The application runs on what was the origin's; neither gate nor database lets anybody work yet. */
async function expectServing(expect: ExpectStatic, described: ProvidedCell): Promise<void> {
  expect(described).toMatchObject({ state: "running", serving: true, provedDead: false });
  const gate = must(described.services["default"]?.endpoints[0], "a gate");
  const answer = await fetch(`${gate}/whoami`, {
    headers: { [headers.tenant]: "acme", [headers.cell]: annex },
  });
  expect([answer.status, answer.headers.get(headers.answeredBy)]).toEqual([403, "cell"]);
  expect(names()).toContain(`${annex}-app`);
  const url = await urlAt(described.stores["default"]?.database);
  expect(new URL(url).pathname).toBe("/app");
  await expect(
    query(url, "insert into idempotency (tenant_id, key, request_hash) values ('a', 'k', 'h')"),
  ).rejects.toMatchObject({ code: expect.stringMatching(/^CF0/) });
}

describe("a physical standby", () => {
  test("is a server that follows the origin's, beside an agent that waits", async ({ expect }) => {
    const given = { agentToken: "token-3", annex: { origin, host, provider: "physical" } } as const;
    expect(await cells.act(annex, "create", given)).toMatchObject({ state: "running" });
    // Nothing was copied yet: its server cannot be reached, which is no fault.
    expect(names().filter((name) => name.startsWith("sb-"))).toEqual([`${annex}-agent`]);
    await provider.ensure(await pairNow(), never);
    await provider.ensure(await pairNow(), never);
    await inStep();
    expect(names()).toContain(`${annex}-db`);
    await asSuperuser(origin, "create table later (note text)");
    await asSuperuser(
      origin,
      "insert into cellfleet.heartbeat (origin, beat, at) values ('cell-01', 77, now())",
    );
    await eventually("what was defined since", async () => {
      const rows = await atStandby("select to_regclass('later') is not null as there");
      return rows[0]?.["there"] === true;
    });
    // Asked again, it is left alone.
    const units = cells.units().map((unit) => unit.status());
    await cells.act(annex, "copy");
    await provider.ensure(await pairNow(), never);
    expect(cells.units().map((unit) => unit.status())).toEqual(units);
  });

  test("goes on by itself when its host has died and come back", async ({ expect }) => {
    await cells.act(host, "kill");
    expect(cells.describe(annex)).toMatchObject({ state: "dead", provedDead: true });
    await cells.act(host, "start");
    await eventually("the annex runs", async () => cells.describe(annex).state === "running");
    await inStep();
    // To serve is noted; there is nothing yet that the application could stand on.
    await cells.act(annex, "serve");
    expect(names()).not.toContain(`${annex}-app`);
  });

  test("is the annex's own after the cut, with the application on it, also after another start", async ({
    expect,
  }) => {
    await cells.act(origin, "kill");
    const pair = await pairNow();
    await expect(provider.activate(pair)).rejects.toMatchObject({ code: "STATE_CONFLICT" });
    const { stores } = await provider.sever(pair);
    expect(stores).toEqual([{ name: "default", remoteLsn: expect.stringMatching(/^\d/) }]);
    await cells.act(origin, "start");
    await expect(provider.ensure(pair, never)).rejects.toMatchObject({ code: "STATE_CONFLICT" });
    await expect(cells.act(annex, "copy")).rejects.toMatchObject({ code: "STATE_CONFLICT" });
    // As long as nothing is open it stays the origin's, and its agent where it was.
    await expect(provider.activate(pair)).rejects.toMatchObject({ code: "STATE_CONFLICT" });
    expect(cells.describe(annex).state).toBe("running");
    await asSuperuser(
      host,
      `select cellfleet.become_annex('cell-01', 'x'), cellfleet.record_takeover('fo_1', 1, true, false, false)`,
      desk,
    );
    await provider.activate(pair);
    await provider.activate(await pairNow());
    await expectServing(expect, cells.describe(annex));
    expect(await atStandby("select cell from cellfleet.progress")).toEqual([{ cell: annex }]);

    const before = cells.describe(annex);
    await cells.act(host, "kill");
    expect(cells.describe(annex)).toMatchObject({ state: "dead", provedDead: true });
    await openAgain();
    await Promise.all([cells.act(origin, "start"), cells.act(host, "start")]);
    await eventually("the annex runs", async () => cells.describe(annex).state === "running");
    await expectServing(expect, cells.describe(annex));
    expect(cells.describe(annex)).toEqual(before);
  });

  test("leaves nothing behind when it is destroyed", async ({ expect }) => {
    await provider.drop(await pairNow(), "there");
    // Its host is down: the server goes at once, the desk when that is back, whoever brings it back.
    await cells.act(host, "kill");
    expect(await cells.act(annex, "destroy")).toMatchObject({ state: "absent" });
    await openAgain();
    await Promise.all([cells.act(origin, "start"), cells.act(host, "start")]);
    await cells.wakeAnnexes();
    expect(await asSuperuser(origin, "select slot_name from pg_replication_slots")).toEqual([]);
    const left = `select datname from pg_database where datname = '${desk}'`;
    expect(await asSuperuser(host, left, "postgres")).toEqual([]);
    await expect(access(join(folder.databases, "cells", host, "annexes", annex))).rejects.toThrow();
    expect(names().filter((name) => name.startsWith("sb-"))).toEqual([]);
  });
});
