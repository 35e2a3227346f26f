/** A whole router between real sockets: a control plane that speaks the wire, cells with a gate. */

import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test, vi } from "vitest";
import {
  deltaOf,
  otherSigner,
  type Placements,
  startControlPlane,
  type TestControlPlane,
  tableOf,
} from "../table/table.fixture.ts";
import { startCell, type TestCell } from "./fleet.fixture.ts";
import { admin, adminJson, ask, codeOf, createBench, of, until } from "./running.fixture.ts";

// Real sockets and a real disk on a machine that may be busy: conditions are waited for, not times.
vi.setConfig({ testTimeout: 30_000, hookTimeout: 30_000 });

const bench = createBench();
const { closers, startRemote } = bench;

async function startFleet(flags: Record<string, unknown> = {}) {
  const owned: { a: Placements; b: Placements } = { a: { acme: "a 1" }, b: { globex: "b 1" } };
  const a = await startCell("a", () => owned.a);
  const b = await startCell("b", () => owned.b);
  const plane = await startControlPlane(
    tableOf(1, { acme: "a 1", globex: "b 1" }, { a: [a.url], b: [b.url] }),
  );
  closers.push(a.close, b.close, plane.close);
  const started = await startRemote(plane.url, flags);
  await until(async () => expect((await admin(started.router, "/readyz")).status).toBe(200));
  return { owned, a, b, plane, ...started };
}

describe("with a control plane", () => {
  test("each tenant is served by its cell, which is told tenant, epoch and trace", async () => {
    const { router, a, lines } = await startFleet();
    const answer = await ask(router.port, "acme", {
      path: "/orders?secret=1",
      headers: { cookie: "c=2", "x-request-id": "mine" },
    });
    expect(answer).toMatchObject({ status: 200, text: "answer of a\n" });
    expect(answer.headers).toMatchObject({ "x-cell": "a", "x-cell-epoch": "1" });
    expect(answer.headers).not.toHaveProperty("x-cellfleet-confirm");
    expect((await ask(router.port, "globex")).text).toBe("answer of b\n");
    expect(a.seen).toEqual(["GET /orders?secret=1 acme 1 "]);
    await until(() => expect(of(lines, "request.done")).toHaveLength(2));
    const [line] = of(lines, "request.done");
    expect(line).toMatchObject({
      tenant: "acme",
      cell: "a",
      epoch: 1,
      status: 200,
      path: "/orders",
      flag: "ok",
      attempt: 1,
    });
    expect(line?.["req_id"]).toBe(answer.headers["x-request-id"]);
    expect(JSON.stringify(lines)).not.toMatch(/secret|c=2|mine/);
  });

  test("an unknown tenant is a 404, a contradiction a 400, and no cell hears of either", async () => {
    const { router, a, b } = await startFleet();
    const unknown = await ask(router.port, "nobody");
    expect(codeOf(unknown)).toBe("404 TENANT_UNKNOWN");
    expect(JSON.parse(unknown.text)).toMatchObject({
      error: { code: "TENANT_UNKNOWN", changed: false },
    });
    expect(unknown.headers["x-cellfleet-answered-by"]).toBe("router router-1");
    expect(codeOf(await ask(router.port, "!"))).toBe("400 TENANT_INVALID");
    expect([...a.seen, ...b.seen]).toEqual([]);
  });

  test("a dead cell is a quick 503 for its tenants, and nothing for others", async () => {
    const { router, a, lines } = await startFleet();
    await ask(router.port, "acme");
    await a.close();
    const dead = await ask(router.port, "acme", { method: "POST", body: "x" });
    expect(codeOf(dead)).toBe("503 CELL_UNREACHABLE");
    expect(dead.headers["retry-after"]).toBe("1");
    const load = await Promise.all(
      [...Array(40).keys()].map((nth) => ask(router.port, nth % 2 === 0 ? "acme" : "globex")),
    );
    expect(new Set(load.filter((_one, nth) => nth % 2 === 1).map(({ status }) => status))).toEqual(
      new Set([200]),
    );
    expect(new Set(load.filter((_one, nth) => nth % 2 === 0).map(codeOf))).toEqual(
      new Set(["503 CELL_UNREACHABLE"]),
    );
    expect(of(lines, "request.done").at(-1)).toMatchObject({ flag: expect.any(String) });
    expect((await admin(router, "/metrics")).text).toMatch(
      /upstream_errors_total\{cell="a",reason="connect"\} \d/,
    );
    // Beyond the fifth nobody is sent to where nothing listens, but one at a time.
    expect((await admin(router, "/metrics")).text).toMatch(
      /upstream_errors_total\{cell="a",reason="breaker"\} [1-9]/,
    );
  });

  test("a change reaches traffic at once, is written to disk, and then acknowledged", async () => {
    const { router, owned, plane } = await startFleet();
    owned.b = { globex: "b 1", acme: "b 2" };
    plane.change({ acme: "b 2" });
    await until(async () => expect((await ask(router.port, "acme")).text).toBe("answer of b\n"));
    await until(() =>
      expect(plane.asked.at(-1)).toMatchObject({ revision: 2, epochMax: 2, router: "router-1" }),
    );
    expect(plane.asked.at(-1)?.checksum).toBe(plane.table().checksum);
    expect(await readFile(join(bench.dir(), "state", "journal.ndjson"), "utf8")).toMatch(
      /"to\\":2/,
    );
    expect(await adminJson(router, "/table")).toMatchObject({
      revision: 2,
      fleet: "fleet-1",
      placements: 2,
    });
    plane.change({}, ["globex"]);
    await until(async () =>
      expect(codeOf(await ask(router.port, "globex"))).toBe("404 TENANT_UNKNOWN"),
    );
  });

  test("it reports what it saw of each cell", async () => {
    const { router, plane, a } = await startFleet();
    await ask(router.port, "acme");
    await a.close();
    await ask(router.port, "acme");
    plane.change({ other: "b 1" });
    await until(() => {
      const seen = plane.asked.flatMap((one) => one.seen).filter(({ cell }) => cell === "a");
      const sum = (name: "requests" | "failures") => seen.reduce((all, one) => all + one[name], 0);
      // One good, and one or two attempts at the dead cell.
      expect(sum("requests") - sum("failures")).toBe(1);
      expect(sum("failures")).toBeGreaterThan(0);
    });
  });
});

describe("when the control plane is gone", () => {
  test("traffic goes on, and a router that starts then serves from its disk", async () => {
    const { router, plane, owned } = await startFleet();
    owned.b = { globex: "b 1", acme: "b 2" };
    plane.change({ acme: "b 2" });
    await until(() => expect(plane.asked.at(-1)?.revision).toBe(2));
    await plane.close();
    expect((await ask(router.port, "globex")).status).toBe(200);
    await router.close();
    const again = await startRemote(plane.url);
    expect((await admin(again.router, "/readyz")).status).toBe(200);
    expect((await ask(again.router.port, "acme")).text).toBe("answer of b\n");
    expect(of(again.lines, "table.applied")).toMatchObject([{ kind: "file", revision: 2 }]);
    await until(() => expect(of(again.lines, "sync.failed")).toHaveLength(1));
  });

  test("changes flow again when it is back", async () => {
    const { router, plane, lines, owned } = await startFleet();
    await plane.close();
    await until(() => expect(of(lines, "sync.failed")).toHaveLength(1));
    const back = await startControlPlane(plane.table(), Number(new URL(plane.url).port));
    closers.push(back.close);
    owned.a = { acme: "a 1", fresh: "a 1" };
    back.change({ fresh: "a 1" });
    await until(async () => expect((await ask(router.port, "fresh")).status).toBe(200));
    expect(of(lines, "sync.recovered")).toHaveLength(1);
    expect((await admin(router, "/metrics")).text).toMatch(/control_plane_connected 1/);
  });

  test("without a table nothing is guessed: 503, not ready, until one comes", async () => {
    const down = await startControlPlane(tableOf(1, {}));
    await down.close();
    const { router } = await startRemote(down.url);
    expect((await admin(router, "/livez")).status).toBe(200);
    expect((await admin(router, "/readyz")).status).toBe(503);
    expect(codeOf(await ask(router.port, "acme"))).toBe("503 TABLE_NOT_LOADED");
  });

  test.each([
    [
      "damaged",
      200,
      async (path: string) =>
        writeFile(path, (await readFile(path, "utf8")).replace("acme", "acne")),
    ],
    ["older", 503, async (path: string) => writeFile(path, await readFile(`${path}.saved`))],
  ])(
    "a %s file is refused and not served from (the one before may be), and a good table replaces it",
    async (_name, status, damage) => {
      const fleet = await startFleet();
      const path = join(bench.dir(), "state", "table.ndjson");
      await until(async () => expect(await readFile(path, "utf8")).toMatch(/acme/));
      await writeFile(`${path}.saved`, await readFile(path));
      fleet.plane.serve(tableOf(9, { acme: "a 1" }, { a: [fleet.a.url] }));
      await until(() => expect(fleet.plane.asked.at(-1)?.revision).toBe(9));
      await fleet.router.close();
      const port = Number(new URL(fleet.plane.url).port);
      await fleet.plane.close();
      await damage(path);
      const { router, lines } = await startRemote(fleet.plane.url);
      expect(of(lines, "table.refused")).toHaveLength(1);
      expect((await ask(router.port, "acme")).status).toBe(status);
      const back = await startControlPlane(fleet.plane.table(), port);
      closers.push(back.close);
      await until(async () => expect((await ask(router.port, "acme")).status).toBe(200));
    },
  );
});

describe("a table is refused", () => {
  test.each([
    [
      "delta that is signed by somebody else",
      "unsigned",
      (plane: TestControlPlane) => deltaOf(plane.table(), { acme: "b 9" }, [], otherSigner),
    ],
    [
      "delta of another fleet",
      "other-fleet",
      () => deltaOf(tableOf(1, {}, {}, "fleet-2"), { acme: "b 9" }),
    ],
    ["delta from another revision", "gap", () => deltaOf(tableOf(7, {}), { acme: "b 9" })],
    [
      "delta whose sum does not fit",
      "drift",
      () => deltaOf(tableOf(1, { acme: "a 1" }), { acme: "b 9" }),
    ],
  ])("a %s changes nothing, and a snapshot heals", async (_name, reason, cheat) => {
    const { router, plane, lines } = await startFleet();
    const before = plane.snapshots();
    plane.cheatNext(cheat(plane));
    await until(() =>
      expect(of(lines, "table.refused")).toMatchObject([{ reason, where: "delta" }]),
    );
    expect((await ask(router.port, "acme")).text).toBe("answer of a\n");
    await until(() => expect(plane.snapshots()).toBe(before + 1));
  });

  test.each([
    ["of another fleet", tableOf(9, { acme: "b 9" }, {}, "fleet-2"), "other-fleet"],
    ["that is older", tableOf(0, { acme: "b 9" }), "older"],
  ])("as a snapshot %s, and the router serves on", async (_name, table, reason) => {
    const { router, plane, lines } = await startFleet();
    plane.serve(table);
    await until(() =>
      expect(of(lines, "table.refused")[0]).toMatchObject({ reason, where: "snapshot" }),
    );
    expect((await ask(router.port, "acme")).text).toBe("answer of a\n");
  });
});

describe("while a tenant moves", () => {
  const moved = { a: {}, b: { globex: "b 1", acme: "b 2" } };

  test("requests wait and go to the new owner, with their bodies, each once", async () => {
    const { router, plane, owned, a, b } = await startFleet();
    plane.change({ acme: "a 1 hold" });
    await until(async () =>
      expect(await adminJson(router, "/table")).toMatchObject({ revision: 2 }),
    );
    const held = [...Array(20).keys()].map((nth) =>
      ask(router.port, "acme", { method: "POST", body: `order ${nth}` }),
    );
    await until(async () =>
      expect((await admin(router, "/metrics")).text).toMatch(/held_requests\{cell="a"\} 20/),
    );
    expect((await ask(router.port, "globex")).status).toBe(200);
    Object.assign(owned, moved);
    plane.change({ acme: "b 2" });
    const answers = await Promise.all(held);
    expect(new Set(answers.map(({ status, text }) => `${status} ${text}`))).toEqual(
      new Set(["200 answer of b\n"]),
    );
    const arrived = b.seen.filter((line) => line.includes("acme"));
    const wanted = [...Array(20).keys()].map((nth) => `POST /orders acme 2 order ${nth}`);
    expect(arrived).toHaveLength(20);
    expect(new Set(arrived)).toEqual(new Set(wanted));
    expect(a.seen).toEqual([]);
    expect((await admin(router, "/metrics")).text).toMatch(/holds_total\{result="released"\} 20/);
  });

  test("a hold that lasts too long is a 503 with its name", async () => {
    const { router, plane } = await startFleet({ holdMs: 40 });
    plane.change({ acme: "a 1 hold" });
    await until(async () =>
      expect(await adminJson(router, "/table")).toMatchObject({ revision: 2 }),
    );
    const answer = await ask(router.port, "acme");
    expect(codeOf(answer)).toBe("503 PLACEMENT_HELD");
    expect(answer.headers["retry-after"]).toBe("1");
  });

  test("a deadline ends a hold before its time", async () => {
    const { router, plane } = await startFleet({ holdMs: 60_000 });
    plane.change({ acme: "a 1 hold" });
    await until(async () =>
      expect(await adminJson(router, "/table")).toMatchObject({ revision: 2 }),
    );
    const answer = await ask(router.port, "acme", { headers: { "x-request-timeout-ms": "40" } });
    expect(codeOf(answer)).toBe("504 DEADLINE_EXCEEDED");
  });

  test("a request that the old owner's gate refuses goes once to the new owner, body and all", async () => {
    const { router, plane, owned, a, b } = await startFleet();
    Object.assign(owned, moved);
    const posted = ask(router.port, "acme", { method: "POST", body: "order" });
    await until(async () =>
      expect((await admin(router, "/metrics")).text).toMatch(/fenced_total\{cell="a"\} 1/),
    );
    plane.change({ acme: "b 2" });
    expect(await posted).toMatchObject({ status: 200, text: "answer of b\n" });
    expect(b.seen).toEqual(["POST /orders acme 2 order"]);
    expect(a.seen).toEqual([]);
  });

  test("refused again by the new owner, it is not sent a third time", async () => {
    const { router, plane, owned, lines } = await startFleet();
    Object.assign(owned, { a: {}, b: {} });
    const posted = ask(router.port, "acme", { method: "POST", body: "order" });
    await until(async () =>
      expect((await admin(router, "/metrics")).text).toMatch(/fenced_total\{cell="a"\} 1/),
    );
    plane.change({ acme: "b 2" });
    expect(codeOf(await posted)).toBe("503 PLACEMENT_UNAVAILABLE");
    await until(() => expect(of(lines, "request.done")).toMatchObject([{ attempt: 2 }]));
  });

  test("without a newer table the refusal is a 503, not a second try", async () => {
    const { router, owned, b, lines } = await startFleet();
    Object.assign(owned, moved);
    expect(codeOf(await ask(router.port, "acme"))).toBe("503 PLACEMENT_UNAVAILABLE");
    await until(() => expect(of(lines, "request.done")).toMatchObject([{ attempt: 1 }]));
    expect(b.seen).toEqual([]);
  });
});

describe("an answer reaches the client only if it is confirmed (R2)", () => {
  const answering = async (serve: Parameters<typeof startCell>[2]) => {
    const cell: TestCell = await startCell("a", () => ({ acme: "a 1" }), serve);
    const plane = await startControlPlane(
      tableOf(1, { acme: "a 1" }, { a: [cell.url], b: [cell.url] }),
    );
    closers.push(cell.close, plane.close);
    const started = await startRemote(plane.url);
    await until(async () => expect((await admin(started.router, "/readyz")).status).toBe(200));
    return { cell, plane, ...started };
  };

  test.each([
    ["missing", (): string[] => []],
    ["other-epoch", () => ["cell=a;epoch=7;lease=60000"]],
    ["lease-over", () => ["cell=a;epoch=1;lease=0"]],
    ["other-cell", () => ["cell=b;epoch=1;lease=60000"]],
  ])("confirmation %s", async (verdict, confirm) => {
    const { router, cell } = await answering((_req, res) => {
      res.removeHeader("x-cellfleet-confirm");
      for (const value of confirm()) res.setHeader("x-cellfleet-confirm", value);
      res.end("secret of the old owner");
    });
    const answer = await ask(router.port, "acme", { method: "POST", body: "order" });
    expect(codeOf(answer)).toBe("503 OUTCOME_UNKNOWN");
    expect(answer.text).not.toMatch(/secret/);
    expect(JSON.parse(answer.text).error).not.toHaveProperty("changed");
    expect(cell.seen).toHaveLength(1);
    expect((await admin(router, "/metrics")).text).toMatch(new RegExp(`verdict="${verdict}"} 1`));
  });

  test("the table moved while the cell worked", async () => {
    let finish: (() => void) | undefined;
    const { router, plane } = await answering((_req, res) => {
      finish = () => void res.end("late");
    });
    const answer = ask(router.port, "acme", { method: "POST", body: "order" });
    await until(() => expect(finish).toBeDefined());
    plane.change({ acme: "b 2" });
    await until(async () =>
      expect(await adminJson(router, "/table")).toMatchObject({ revision: 2 }),
    );
    finish?.();
    expect(codeOf(await answer)).toBe("503 OUTCOME_UNKNOWN");
  });

  test("a refusal of the gate itself comes through as what it is", async () => {
    const { router } = await answering((_req, res) => {
      res.removeHeader("x-cellfleet-confirm");
      res.writeHead(503, {
        "x-cellfleet-error": "LEASE_MISSING",
        "x-cellfleet-answered-by": "cell",
      });
      res.end("no lease");
    });
    const answer = await ask(router.port, "acme");
    expect(codeOf(answer)).toBe("503 LEASE_MISSING");
    expect(answer.headers["x-cellfleet-answered-by"]).toBe("cell");
  });

  test("a forged refusal with another nonce is not replayed", async () => {
    const { router, cell } = await answering((_req, res) => {
      res.removeHeader("x-cellfleet-confirm");
      res.writeHead(421, { "x-cellfleet-not-admitted": "guess" });
      res.end();
    });
    expect(codeOf(await ask(router.port, "acme", { method: "POST", body: "order" }))).toBe(
      "503 OUTCOME_UNKNOWN",
    );
    expect(cell.seen).toHaveLength(1);
  });
});
