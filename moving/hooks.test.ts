/** Hooks of stores that are no PostgreSQL, against a real HTTP server and real commands. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { CellError } from "../contract/errors.ts";
import { cellIdSchema, epochSchema, opIdSchema } from "../contract/ids.ts";
import { placementKeySchema } from "../contract/placement-key.ts";
import type { StoreHook } from "../contract/routing-table.ts";
import { systemClock } from "../runtime/clock.ts";
import { createHooks } from "./hooks.ts";
import type { ExternalSide, HookPhase, MoveTask } from "./ports.ts";

const hooks = createHooks({ clock: systemClock, allowCommands: true });
const noSignal = new AbortController().signal;
const folder = mkdtempSync(join(tmpdir(), "cellfleet-hooks-"));

type Told = { readonly path: string; readonly key: string | undefined; readonly body: unknown };
const told: Told[] = [];
const answers: Array<(response: ServerResponse, request: IncomingMessage) => void> = [];
const server = createServer((request, response) => {
  const chunks: Buffer[] = [];
  request.on("data", (chunk: Buffer) => chunks.push(chunk));
  request.on("end", () => {
    const key = request.headers["idempotency-key"];
    told.push({
      path: request.url ?? "",
      key: typeof key === "string" ? key : undefined,
      body: JSON.parse(Buffer.concat(chunks).toString("utf8")),
    });
    const answer = answers.shift();
    if (answer === undefined) response.writeHead(204).end();
    else answer(response, request);
  });
});
let origin: string;

beforeAll(async () => {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterEach(() => {
  told.length = 0;
  answers.length = 0;
});
afterAll(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  rmSync(folder, { recursive: true, force: true });
});

const side = (hook: StoreHook | undefined, ignore = false): ExternalSide => ({ hook, ignore });
const web = (path = "/", timeoutMs = 5000): ExternalSide =>
  side({ url: `${origin}${path}`, timeoutMs });
const shell = (command: string, timeoutMs = 5000): ExternalSide => side({ command, timeoutMs });

function taskOf(...external: MoveTask["external"][number][]): MoveTask {
  return {
    op: opIdSchema.parse("op_1move000001"),
    attempt: 2,
    keyspace: {
      name: "default" as MoveTask["keyspace"]["name"],
      strategy: "directory",
      guardMode: "row",
    },
    keys: [
      {
        key: placementKeySchema.parse("default/tenant/acme"),
        epoch: epochSchema.parse(4),
        until: null,
        overrides: [],
      },
    ],
    source: cellIdSchema.parse("a"),
    target: cellIdSchema.parse("b"),
    stores: [],
    external,
    reverses: null,
  };
}
const both = (of: ExternalSide, name = "cache") => taskOf({ name, source: of, target: of });
const call = (task: MoveTask, phase: HookPhase = "copy", signal = noSignal) =>
  hooks.call(task, phase, signal);

async function failureOf(work: Promise<unknown>): Promise<CellError> {
  const error: unknown = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof CellError)) throw new Error(`expected a refusal, not ${String(error)}`);
  expect(error.code).toBe("MOVE_HOOK_FAILED");
  return error;
}

describe("a hook with a url", () => {
  it("is told what moves, under a key that is the same each time", async () => {
    await call(both(web("/hook")), "fence");
    await call(both(web("/hook")), "fence");
    const idempotencyKey = "op_1move000001:fence:4:2:cache";
    expect(told).toHaveLength(2);
    expect(told[0]).toEqual(told[1]);
    expect(told[0]).toEqual({
      path: "/hook",
      key: idempotencyKey,
      body: {
        op: "op_1move000001",
        attempt: 2,
        phase: "fence",
        keyspace: "default",
        keys: [{ key: "default/tenant/acme", epoch: 4 }],
        source: "a",
        target: "b",
        store: "cache",
        idempotencyKey,
      },
    });
  });

  it("is asked on both sides where they differ, source first, and not where it is ignored", async () => {
    await call(
      taskOf(
        { name: "cache", source: web("/source"), target: web("/target") },
        { name: "search", source: web("/search"), target: side(undefined, true) },
        { name: "files", source: side(undefined, true), target: side(undefined, true) },
      ),
    );
    expect(told.map(({ path }) => path)).toEqual(["/source", "/target", "/search"]);
  });

  it("is asked again after a fault of the server, and no more often than three times", async () => {
    const fault = (response: ServerResponse) => response.writeHead(500).end("not now");
    answers.push(fault, fault);
    await call(both(web()));
    expect(told).toHaveLength(3);
    answers.push(fault, fault, fault);
    const error = await failureOf(call(both(web())));
    expect(error.message).toContain("asked 3 times");
    expect(error.message).toContain("it answered 500: not now");
  });

  it("is asked once when it refuses, or sends elsewhere", async () => {
    answers.push((response) => response.writeHead(409).end("other tenant"));
    expect((await failureOf(call(both(web())))).message).toContain("409: other tenant");
    answers.push((response) => response.writeHead(302, { location: origin }).end());
    expect((await failureOf(call(both(web())))).message).toContain("302");
    expect(told).toHaveLength(2);
  });

  it("is shown in part, without what a terminal would obey", async () => {
    answers.push((response) =>
      response.writeHead(400).end(`a\u001b[2Jb\u202ec\r\nd\u0000 ${"x".repeat(5000)}`),
    );
    const { message } = await failureOf(call(both(web())));
    // biome-ignore lint/suspicious/noControlCharactersInRegex: their absence is the point.
    expect(message).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u202a-\u202e]/);
    expect(message.length).toBeLessThan(400);
    expect(message).toContain("[2J");
  });

  it("is not read to the end when it answers without one", async () => {
    let closed = false;
    answers.push((response) => {
      response.writeHead(400);
      const chunk = Buffer.alloc(65_536, "x");
      const more = () => {
        while (!closed && response.write(chunk));
      };
      response.on("drain", more);
      response.on("close", () => {
        closed = true;
      });
      more();
    });
    await failureOf(call(both(web())));
    await vi.waitFor(() => expect(closed).toBe(true));
  });

  it("is done by its status, whatever it says", async () => {
    answers.push((response) =>
      response.writeHead(200, { "content-type": "application/json" }).end("{not json"),
    );
    await call(both(web()));
    expect(told).toHaveLength(1);
  });

  it("has its time, tries included", async () => {
    answers.push(() => {}); // Never answers.
    const { message } = await failureOf(call(both(web("/", 150))));
    expect(message).toContain("no answer within");
    expect(told).toHaveLength(1);
  });

  it("is over when nobody waits for it any more", async () => {
    const abort = new AbortController();
    let closed = false;
    answers.push((response) => {
      response.on("close", () => {
        closed = true;
      });
      abort.abort(new Error("enough"));
    });
    await expect(call(both(web()), "copy", abort.signal)).rejects.toThrow("enough");
    await vi.waitFor(() => expect(closed).toBe(true));
    expect(told).toHaveLength(1);
  });

  it("may be unreachable for a moment only", async () => {
    const gone = side({ url: "http://127.0.0.1:1/", timeoutMs: 5000 });
    const { message } = await failureOf(call(both(gone)));
    expect(message).toContain("asked 3 times");
  });
});

describe("a hook that is a command", () => {
  const file = (name: string): string => join(folder, name);
  const isAlive = (pid: number): boolean => {
    try {
      process.kill(pid, 0);
      // A zombie that init has not collected is not alive.
      return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
    } catch {
      return false;
    }
  };
  const pidIn = (name: string): number => Number(readFileSync(file(name), "utf8"));

  it("reads what moves, in a clean environment", async () => {
    vi.stubEnv("CELLFLEET_SECRET", "hush");
    await call(both(shell(`cat > ${file("told")}; env > ${file("env")}`)), "purge");
    vi.unstubAllEnvs();
    expect(JSON.parse(readFileSync(file("told"), "utf8"))).toMatchObject({
      phase: "purge",
      store: "cache",
    });
    expect(readFileSync(file("env"), "utf8")).not.toContain("hush");
  });

  it("need not read, and may say a lot", async () => {
    await expect(call(both(shell("head -c 5000000 /dev/zero")))).resolves.toBeUndefined();
  });

  it("failed by its exit code is run again, and what it said is told", async () => {
    const { message } = await failureOf(
      call(both(shell(`echo x >> ${file("tries")}; echo 'no space' >&2; exit 3`))),
    );
    expect(message).toContain("it exited with 3: no space");
    expect(readFileSync(file("tries"), "utf8")).toBe("x\nx\nx\n");
  });

  it("is killed at its time, with all that it started", async () => {
    const { message } = await failureOf(
      call(both(shell(`sleep 600 & echo $! > ${file("child")}; wait`, 300))),
    );
    expect(message).toContain("it was killed");
    await vi.waitFor(() => expect(isAlive(pidIn("child"))).toBe(false));
  });

  it("leaves nothing behind that holds its pipes open", async () => {
    await call(both(shell(`sleep 600 & echo $! > ${file("left")}; exit 0`)));
    await vi.waitFor(() => expect(isAlive(pidIn("left"))).toBe(false));
  });

  it("is killed when nobody waits for it any more", async () => {
    const abort = new AbortController();
    const work = call(both(shell(`echo $$ > ${file("self")}; sleep 600`)), "copy", abort.signal);
    await vi.waitFor(() => expect(existsSync(file("self")) && pidIn("self") > 0).toBe(true));
    abort.abort(new Error("enough"));
    await expect(work).rejects.toThrow("enough");
    await vi.waitFor(() => expect(isAlive(pidIn("self"))).toBe(false));
  });

  it("is not run where commands are not allowed", async () => {
    const careful = createHooks({ clock: systemClock, allowCommands: false });
    const task = both(shell(`touch ${file("ran")}`));
    await failureOf(careful.call(task, "copy", noSignal));
    expect(existsSync(file("ran"))).toBe(false);
    expect(careful.checks(task)).toMatchObject([{ verdict: "refused" }, { verdict: "refused" }]);
    expect(hooks.checks(task)).toMatchObject([{ verdict: "ok" }, { verdict: "ok" }]);
  });
});

describe("before the move", () => {
  it.each<[string, ExternalSide | null, string]>([
    ["neither hook nor ignore", side(undefined), "refused"],
    ["a cell that has no such store", null, "refused"],
    ["ignore", side(undefined, true), "ok"],
    ["a hook", side({ url: "http://127.0.0.1/", timeoutMs: 100 }), "ok"],
  ])("judges %s", (_, target, verdict) => {
    const task = taskOf({ name: "cache", source: side(undefined, true), target });
    expect(hooks.checks(task)).toMatchObject([
      { id: "external", cell: "a", store: "cache", verdict: "ok" },
      { id: "external", cell: "b", store: "cache", verdict },
    ]);
  });
});
