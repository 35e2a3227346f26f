/** For tests: a cell's database with the sample's tables under the guard, and the sample as a real process. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import type pg from "pg";
import { request } from "undici";
import { openClient, storeRoles } from "../../tests/cell-store.ts";
import type { TestPostgres } from "../../tests/postgres.ts";
import { readFacts } from "../store/facts.ts";
import { installPack } from "../store/install.ts";
import { setLease } from "../store/lease.ts";
import { protectTable } from "../store/protect.ts";

export const tables = ["orders", "idempotency", "outbox"] as const;

export type SampleDatabase = {
  readonly url: string;
  /** The superuser's; sees every row. */
  readonly admin: pg.Client;
  readonly own: (tenant: string, state: string, epoch?: number) => Promise<void>;
  readonly grantLease: (ttlMs?: number) => Promise<void>;
  /** Past the guard, as only a superuser can. */
  readonly pastGuard: (text: string) => Promise<void>;
  readonly close: () => Promise<void>;
};

export async function createSampleDatabase(
  server: TestPostgres,
  name: string,
): Promise<SampleDatabase> {
  const admin = await openClient(await server.createDatabase(name));
  await installPack(admin, { ...storeRoles, cellId: name });
  for (const role of [storeRoles.appRole, storeRoles.agentRole]) {
    await admin.query(`alter role ${role} login password '${server.password}'`);
  }
  await admin.query(`grant create on schema public to ${storeRoles.appOwnerRole}`);
  await admin.query(`set role ${storeRoles.appOwnerRole}`);
  const schema = await readFile(join(import.meta.dirname, "schema.sql"), "utf8");
  await admin.query(schema);
  for (const table of tables) {
    await protectTable(admin, {
      ...{ schema: "public", table },
      ...{ keyColumn: "tenant_id", keyspace: "default" },
    });
    await admin.query(`grant select, insert, update, delete on ${table} to ${storeRoles.appRole}`);
  }
  // Once more, as at the next release: it changes nothing.
  await admin.query(schema);
  await admin.query("reset role");
  const agent = await openClient(server.url(name, storeRoles.agentRole));
  await agent.query(
    `select cellfleet.set_keyspaces('[{"name":"default","strategy":"directory","guardMode":"strict"}]')`,
  );
  for (const table of ["orders", "outbox"]) {
    await agent.query("select cellfleet.add_id_range($1, 1001, 2000000)", [
      `public.${table}_id_seq`,
    ]);
  }
  let attempt = 0;
  return {
    url: server.url(name, storeRoles.appRole),
    admin,
    own: async (tenant, state, epoch = 1) => {
      attempt += 1;
      const change = { key: `default/tenant/${tenant}`, state, epoch, op: "op_test", attempt };
      const { rows } = await agent.query(
        "select outcome from cellfleet.apply_ownership($1, null, 5000)",
        [JSON.stringify([change])],
      );
      if (rows[0]?.outcome !== "applied") throw new Error(`not applied: ${rows[0]?.outcome}`);
    },
    grantLease: async (ttlMs = 1_200_000) => {
      const { grant, clock, boot } = await readFacts(agent);
      await setLease(agent, { grant: grant + 1, clock, ttlMs, boot, holder: "test" });
    },
    pastGuard: async (text) => {
      await admin.query(`begin; set local session_replication_role = replica; ${text}; commit`);
    },
    close: async () => {
      await agent.end();
      await admin.end();
    },
  };
}

export type Answer = {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  // A test looks at whatever the answer holds.
  readonly json: Record<string, unknown>;
  readonly text: string;
};
export type Asked = {
  readonly method?: "GET" | "POST";
  readonly body?: unknown;
  readonly rawBody?: string;
  readonly epoch?: number;
  readonly headers?: Readonly<Record<string, string>>;
};

export type SampleApp = {
  readonly port: number;
  readonly ask: (tenant: string | undefined, path: string, asked?: Asked) => Promise<Answer>;
  readonly output: () => string;
  readonly alive: () => boolean;
  /** Resolves with the exit code, or the signal that ended it. */
  readonly end: (signal: "SIGTERM" | "SIGKILL") => Promise<number | string | null>;
};

export async function startSampleApp(
  database: SampleDatabase,
  env: Readonly<Record<string, string>> = {},
): Promise<SampleApp> {
  const child: ChildProcess = spawn(process.execPath, [join(import.meta.dirname, "main.ts")], {
    env: { PORT: "0", DATABASE_URL: database.url, CELL_ID: "cell-test", ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  child.stderr?.on("data", (chunk) => {
    output += String(chunk);
  });
  const port = await new Promise<number>((resolve, reject) => {
    child.stdout?.on("data", (chunk) => {
      output += String(chunk);
      const [, found] = /"event":"app.listening","port":(\d+)/.exec(output) ?? [];
      if (found !== undefined) resolve(Number(found));
    });
    child.once("exit", (code) => reject(new Error(`ended with ${code}\n${output}`)));
  });
  return {
    port,
    output: () => output,
    alive: () => child.exitCode === null && child.signalCode === null,
    ask: (tenant, path, asked = {}) => askApp(port, tenant, path, asked),
    end: async (signal) => {
      if (child.exitCode !== null || child.signalCode !== null) return child.exitCode;
      const ended = once(child, "exit");
      child.kill(signal);
      const [code, by] = (await ended) as [number | null, string | null];
      return code ?? by;
    },
  };
}

async function askApp(
  port: number,
  tenant: string | undefined,
  path: string,
  asked: Asked,
): Promise<Answer> {
  const gate =
    tenant === undefined
      ? {}
      : {
          "x-cellfleet-tenant": tenant,
          "x-cellfleet-key": `default/tenant/${tenant}`,
          "x-cellfleet-epoch": String(asked.epoch ?? 1),
        };
  const body = asked.rawBody ?? (asked.body === undefined ? undefined : JSON.stringify(asked.body));
  const response = await request(`http://127.0.0.1:${port}${path}`, {
    method: asked.method ?? (body === undefined ? "GET" : "POST"),
    headers: { ...gate, ...asked.headers },
    ...(body === undefined ? {} : { body }),
  });
  const text = await response.body.text();
  const json = text.startsWith("{") ? (JSON.parse(text) as Record<string, unknown>) : {};
  return { status: response.statusCode, headers: response.headers, json, text };
}

export type Receiver = {
  readonly url: string;
  /** Outbox ids in the order in which they came. */
  readonly ids: string[];
  readonly items: string[];
  /** The status to answer a message about this item with; default 204. `hold` answers never. */
  readonly answers: Map<string, number | "hold">;
  readonly close: () => Promise<void>;
};

/** Where the outbox sends to. */
export async function startReceiver(): Promise<Receiver> {
  const ids: string[] = [];
  const items: string[] = [];
  const answers = new Map<string, number | "hold">();
  const server: Server = createServer((req, res) => {
    let text = "";
    req.on("data", (chunk) => {
      text += String(chunk);
    });
    req.on("end", () => {
      const { payload } = JSON.parse(text) as { payload: { item: string } };
      ids.push(String(req.headers["x-outbox-id"]));
      items.push(payload.item);
      const answer = answers.get(payload.item) ?? 204;
      if (answer !== "hold") res.writeHead(answer).end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    ids,
    items,
    answers,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

const waitMs = 20_000;

/** Waits for a condition, and says which one did not come. */
export async function until(what: string, holds: () => Promise<boolean> | boolean): Promise<void> {
  const deadline = performance.now() + waitMs;
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`never happened: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 15));
  }
}

export const tea = { item: "tea", quantity: 2 };
export const idOf = (answer: Answer): number => Number(answer.json["id"]);
export const codeOf = (answer: Answer): unknown =>
  (answer.json["error"] as Record<string, unknown> | undefined)?.["code"];
export const itemsOf = (answer: Answer) =>
  answer.json["items"] as ReadonlyArray<Record<string, unknown>>;
export const countsOf = async (app: SampleApp, tenant: string) =>
  (await app.ask(tenant, "/outbox")).json["counts"] as Record<string, number>;
