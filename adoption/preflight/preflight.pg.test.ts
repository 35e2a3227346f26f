/** `cellctl check --database-url` against a real PostgreSQL, with the roles that RDS and Cloud SQL make. */
import { readFileSync } from "node:fs";
import { connect, createServer, type Server } from "node:net";
import { resolve } from "node:path";
import pg from "pg";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { installPack } from "../../cell/store/install.ts";
import { cellctl } from "../../cli/cli.fixture.ts";
import { createCellStore, storeRoles } from "../../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";

let server: TestPostgres;
let admin: pg.Client;
const closing: (() => Promise<unknown>)[] = [];

beforeAll(async () => {
  server = await startTestPostgres();
  await server.createDatabase("shop");
  admin = new pg.Client(server.url("shop"));
  await admin.connect();
  // A server of an application's own, as found: nobody thought of cells.
  await admin.query(`
    create role shop_owner login createrole password '${server.password}';
    create role shop_app login password '${server.password}';
    create role shop_mover login password '${server.password}';
    grant create on database shop to shop_owner;
    create table orders (id bigserial primary key, tenant_id text not null);
    alter table orders owner to shop_owner`);
});
afterEach(async () => {
  for (const close of closing.splice(0).toReversed()) await close();
});
afterAll(async () => {
  await admin?.end();
  await server?.stop();
});

const itemSchema = z.object({
  items: z.array(
    z.object({
      id: z.string(),
      severity: z.enum(["must", "should"]),
      state: z.string(),
      text: z.string(),
      fix: z.string().nullable(),
    }),
  ),
});

async function check(user: string, ...args: readonly string[]) {
  return checkUrl(server.url("shop", user), ...args);
}

async function checkUrl(url: string, ...args: readonly string[]) {
  const ran = await cellctl(["check", "--database-url", "env:SHOP_URL", ...args, "-o", "json"], {
    env: { SHOP_URL: url },
  });
  const { items } = itemSchema.parse(JSON.parse(ran.stdout));
  const find = (id: string) => {
    const item = items.find((candidate) => candidate.id === id);
    if (item === undefined) throw new Error(`no item ${id}`);
    return item;
  };
  const failed = items.filter(({ state }) => state === "failed").map(({ id }) => id);
  return { ...ran, items, find, failed };
}

/** What a test grants is the server's: the next test must not find it. */
async function only(statements: string, back: string) {
  await admin.query(statements);
  closing.push(() => admin.query(back));
}

/** The server under test does not sync its files, which is a finding everywhere here. */
const careless = ["durability-fsync", "durability-full-page-writes"];

describe("an owner who may create roles", () => {
  test("is fit, but for the files that are not synced; the refusal names them with their fixes", async () => {
    const { code, failed, find, stderr } = await check("shop_owner");
    expect({ code, failed }).toEqual({ code: 4, failed: careless });
    expect(find("wal-level")).toMatchObject({ state: "ok", text: "wal_level = logical" });
    expect(find("idle-in-transaction")).toMatchObject({ state: "warn", severity: "should" });
    // The server's limit, not the one that this look has set itself.
    expect(find("transaction-limit").text).toContain("statement_timeout = 0 ms");
    expect(JSON.parse(stderr).error).toMatchObject({
      code: "DATABASE_UNFIT",
      details: { missing: careless },
      next_steps: [expect.stringContaining("alter system set fsync = 'on'"), expect.any(String)],
    });
  });

  test("with everything in order the exit code is 0", async () => {
    await admin.query("alter system set fsync = on");
    await admin.query("alter system set full_page_writes = on");
    await admin.query("select pg_reload_conf()");
    closing.push(async () => {
      await admin.query("alter system reset all");
      await admin.query("select pg_reload_conf()");
      await expect.poll(async () => (await check("shop_owner")).failed).toEqual(careless);
    });
    await expect.poll(async () => (await check("shop_owner")).code).toBe(0);
  });

  test("a table of somebody else, and a database in which nothing may be created, are told", async () => {
    await only(
      "create table audit (id bigint); revoke create on database shop from shop_owner",
      "drop table audit; grant create on database shop to shop_owner",
    );
    const { failed, find } = await check("shop_owner");
    expect(failed).toEqual([...careless, "create-in-database", "table-owner"]);
    expect(find("table-owner").fix).toBe('grant "postgres" to "shop_owner";');
    expect(find("table-owner").text).toContain("public.audit belongs to postgres");
  });

  test("without CREATEROLE the prepared role does as well", async () => {
    await only("alter role shop_owner nocreaterole", "alter role shop_owner createrole");
    expect((await check("shop_owner")).failed).toContain("roles");
    await only(
      "create role cellfleet_owner nologin; grant cellfleet_owner to shop_owner with set true",
      "drop role cellfleet_owner",
    );
    expect((await check("shop_owner")).failed).not.toContain("roles");
  });
});

describe("the application's role", () => {
  test("is found harmless", async () => {
    const { failed, find } = await check("shop_owner", "--app-role", "shop_app");
    expect(failed).toEqual(careless);
    expect(find("app-weak").state).toBe("ok");
  });

  test.each([
    ["alter role shop_app bypassrls", "alter role shop_app nobypassrls", "app-weak"],
    ["grant shop_owner to shop_app", "revoke shop_owner from shop_app", "app-not-owner"],
    [
      "grant set on parameter session_replication_role to shop_app",
      "revoke set on parameter session_replication_role from shop_app",
      "app-triggers-stay-on",
    ],
  ])("%s is found", async (grant, revoke, id) => {
    await only(grant, revoke);
    const { failed, find } = await check("shop_owner", "--app-role", "shop_app");
    expect(failed).toEqual([...careless, id]);
    expect(find(id).fix).toMatch(/shop_app/);
  });

  test("superuser: told by the URL's own role", async () => {
    const { failed, find } = await check("postgres", "--role", "app");
    expect(failed).toEqual([...careless, "app-weak", "app-not-owner"]);
    expect(find("app-weak").text).toContain("a superuser");
  });

  test("one that is not there is missing", async () => {
    const { failed } = await check("shop_owner", "--app-role", "shopp");
    expect(failed).toEqual([...careless, "app-role"]);
  });

  test("its own limits count, not the server's", async () => {
    expect((await check("shop_owner")).find("idle-in-transaction").state).toBe("warn");
    const advised = await check("shop_owner", "--app-role", "shop_app");
    expect(advised.find("idle-in-transaction").fix).toBe(
      `alter role "shop_app" set idle_in_transaction_session_timeout = '60s';`,
    );
    await only(
      "alter role shop_app set idle_in_transaction_session_timeout = '30s'",
      "alter role shop_app reset idle_in_transaction_session_timeout",
    );
    const { find } = await check("shop_owner", "--app-role", "shop_app");
    expect(find("idle-in-transaction")).toMatchObject({ state: "ok" });
  });
});

describe("settings that stop moves", () => {
  test("are found on a server that was never meant to replicate", async () => {
    await admin.query("alter system set wal_level = replica");
    await admin.query("alter system set max_replication_slots = 1");
    await admin.query("alter system set max_prepared_transactions = 5");
    await restart();
    closing.push(async () => {
      await admin.query("alter system reset all");
      await restart();
    });
    const { failed, find } = await check("shop_owner");
    expect(failed).toEqual(["wal-level", "replication-slots", ...careless]);
    expect(find("wal-level").fix).toBe(
      "alter system set wal_level = 'logical';   then restart PostgreSQL",
    );
    expect(find("prepared-transactions").state).toBe("warn");
  });

  test("a value that waits for a restart is told as such", async () => {
    await admin.query("alter system set max_wal_senders = 2");
    await restart();
    await admin.query("alter system set max_wal_senders = 20");
    await admin.query("select pg_reload_conf()");
    closing.push(async () => {
      await admin.query("alter system reset all");
      await restart();
    });
    await expect
      .poll(async () => (await check("shop_owner")).find("wal-senders").text)
      .toBe("max_wal_senders = 2, changed but not restarted yet");
  });

  async function restart() {
    await admin.end();
    await server.restart("fast");
    admin = new pg.Client(server.url("shop"));
    await admin.connect();
  }
});

describe("a mover", () => {
  const missing = [
    ...careless,
    "create-subscription",
    "replication",
    "create-publication",
    "replication-role-setting",
    "sees-all-rows",
    "acts-as-table-owner",
  ];
  const grants = `grant pg_create_subscription to shop_mover; grant create on database shop to shop_mover;
                  grant shop_owner to shop_mover`;
  const back = `revoke pg_create_subscription from shop_mover; revoke shop_owner from shop_mover;
                revoke create on database shop from shop_mover`;

  test("on plain PostgreSQL: every grant is named, and found once it is there", async () => {
    const before = await check("shop_mover", "--role", "mover");
    expect(before.failed).toEqual(missing);
    expect(before.find("replication").fix).toBe(
      'alter role "shop_mover" with replication;   as a superuser',
    );
    await only(grants, back);
    await only(
      `alter role shop_mover replication;
       grant set on parameter session_replication_role to shop_mover`,
      `alter role shop_mover noreplication;
       revoke set on parameter session_replication_role from shop_mover`,
    );
    expect((await check("shop_mover", "--role", "mover")).failed).toEqual(careless);
  });

  test("on RDS: its roles stand in for attributes, the parameter group for settings", async () => {
    await only(
      "create role rds_superuser; create role rds_replication",
      "drop role rds_superuser, rds_replication",
    );
    const { failed, find } = await check("shop_mover", "--role", "mover");
    expect(failed).toEqual(missing);
    expect(find("replication").fix).toBe(
      'grant rds_replication to "shop_mover";   as the master user (rds_superuser)',
    );
    expect(find("idle-in-transaction").fix).toContain(
      "ParameterName=idle_in_transaction_session_timeout,ParameterValue=60s,ApplyMethod=immediate",
    );
    expect(find("replication-role-setting").fix).toContain("grant rds_superuser to");
    await only(grants, back);
    await only("grant rds_replication to shop_mover", "revoke rds_replication from shop_mover");
    expect((await check("shop_mover", "--role", "mover")).failed).toEqual([
      ...careless,
      "replication-role-setting",
    ]);
  });

  test("on Cloud SQL: what it gives to nobody is advice, the rest flags and grants", async () => {
    await only("create role cloudsqlsuperuser", "drop role cloudsqlsuperuser");
    const { failed, find } = await check("shop_mover", "--role", "mover");
    expect(failed).toEqual(missing.filter((id) => id !== "replication-role-setting"));
    expect(find("replication-role-setting").state).toBe("warn");
    expect(find("idle-in-transaction").fix).toContain(
      "--database-flags=idle_in_transaction_session_timeout=60s",
    );
    expect(find("create-subscription").fix).toContain("as the user postgres (cloudsqlsuperuser)");
  });
});

describe("an agent", () => {
  test("needs a direct connection: a pooler that shares sessions is found by what it answers", async () => {
    const through = await startPooler(server.port);
    const url = new URL(server.url("shop", "shop_owner"));
    url.port = String(through.port);
    const { failed, find } = await checkUrl(url.href, "--role", "agent");
    expect(failed).toContain("pooler");
    expect(find("pooler").text).toBe("through a pooler that keeps sessions together");
    expect((await checkUrl(url.href)).find("pooler").state).toBe("warn");
    expect((await check("shop_owner", "--role", "agent")).find("pooler").state).toBe("ok");
  });

  test("a pooler that shares one session between two connections is told from one that does not", async () => {
    const through = await startPooler(server.port, "shares sessions");
    const url = new URL(server.url("shop", "shop_owner"));
    url.port = String(through.port);
    const { find } = await checkUrl(url.href, "--role", "mover");
    expect(find("pooler")).toMatchObject({
      state: "failed",
      text: "through a pooler that gives each transaction another session",
    });
  });

  test("before anything is installed its functions cannot be judged", async () => {
    const { find } = await check("shop_owner", "--role", "agent");
    expect(find("agent-functions").state).toBe("skipped");
  });
});

describe("once the schema is installed", () => {
  test("agent and application are what they should be; the application is no agent", async () => {
    const store = await createCellStore(server, "cell_01");
    closing.push(() => store.close());
    const as = (role: string, ...args: readonly string[]) =>
      checkUrl(server.url("cell_01", role), ...args);
    const agent = await as(
      storeRoles.agentRole,
      "--role",
      "agent",
      "--app-role",
      storeRoles.appRole,
    );
    expect(agent.failed).toEqual(careless);
    expect(agent.find("agent-functions").state).toBe("ok");
    expect((await as(storeRoles.appRole, "--role", "app")).failed).toEqual(careless);
    expect((await as(storeRoles.appRole, "--role", "agent")).failed).toEqual([
      ...careless,
      "agent-functions",
    ]);
    await store.admin.query(`grant ${storeRoles.appOwnerRole} to ${storeRoles.appRole}`);
    expect((await as(storeRoles.appRole, "--role", "app")).failed).toContain("app-not-owner");
  });

  test("the mover may act as both owners, and see and end what stands in its way", async () => {
    const store = await createCellStore(server, "cell_02");
    closing.push(() => store.close());
    const { moverRole, appOwnerRole } = storeRoles;
    const look = () => checkUrl(store.moverUrl, "--role", "mover");
    const fit = await look();
    expect(fit.failed).toEqual(careless);
    for (const id of ["acts-as-table-owner", "acts-as-pack-owner", "monitor", "signal"]) {
      expect(fit.find(id).state, id).toBe("ok");
    }
    const lost: ReadonlyArray<readonly [string, string, string, string]> = [
      [
        `grant ${appOwnerRole} to ${moverRole} with set false`,
        `grant ${appOwnerRole} to ${moverRole} with set true`,
        "acts-as-table-owner",
        `grant "${appOwnerRole}" to "${moverRole}" with inherit true, set true;`,
      ],
      [
        `grant cellfleet_owner to ${moverRole} with set false`,
        `grant cellfleet_owner to ${moverRole} with set true`,
        "acts-as-pack-owner",
        `cellctl schema install --mover-role ${moverRole}`,
      ],
      [
        `revoke pg_signal_backend from ${moverRole}`,
        `grant pg_signal_backend to ${moverRole}`,
        "signal",
        `grant pg_signal_backend to "${moverRole}";   as a superuser`,
      ],
    ];
    for (const [take, give, id, fix] of lost) {
      await store.admin.query(take);
      const item = (await look()).find(id);
      await store.admin.query(give);
      expect(item, id).toMatchObject({ state: item.severity === "must" ? "failed" : "warn", fix });
    }
  });
});

test("a role made by the statements of docs/your-application.md lacks nothing that moves need", async () => {
  const page = readFileSync(resolve(import.meta.dirname, "../../docs/your-application.md"), "utf8");
  const [, block = ""] = /^## 10\.[\s\S]*?```sql\n([\s\S]*?)```/m.exec(page) ?? [];
  const store = await createCellStore(server, "cell_03");
  closing.push(() => store.close());
  const statements = block
    .replaceAll("cellfleet_mover", "page_mover")
    .replaceAll("'SECRET'", `'${server.password}'`)
    .replaceAll("shop_owner", storeRoles.appOwnerRole)
    .replace("on database shop ", "on database cell_03 ");
  expect(statements).toContain("page_mover login");
  await store.admin.query(statements);
  await installPack(store.admin, { ...storeRoles, moverRole: "page_mover", cellId: "cell_03" });
  const { failed, find } = await checkUrl(server.url("cell_03", "page_mover"), "--role", "mover");
  expect(failed).toEqual(careless);
  expect([find("monitor").state, find("signal").state]).toEqual(["ok", "ok"]);
});

describe("what cannot be looked at", () => {
  test("an address where nobody listens names neither password nor URL", async () => {
    const free = await startPooler(server.port);
    await free.close();
    const url = `postgres://u:hunter2@127.0.0.1:${free.port}/shop`;
    const { code, stdout, stderr } = await cellctl(["check", "--database-url", "env:U"], {
      env: { U: url },
    });
    expect({ code, stdout }).toEqual({ code: 78, stdout: "" });
    expect(stderr).toContain("ECONNREFUSED");
    expect(stderr).not.toContain("hunter2");
  });

  test("a wrong password and a reference to nothing are told as what they are", async () => {
    const url = new URL(server.url("shop", "shop_app"));
    url.password = "wrong";
    const wrong = await cellctl(["check", "--database-url", "env:U"], { env: { U: url.href } });
    expect(wrong.stderr).toContain("password authentication failed");
    const none = await cellctl(["check", "--database-url", "env:U"]);
    expect(none.stderr).toContain("The secret at env:U is not set");
  });

  test("a URL with its password on the command line works, and is warned of", async () => {
    const { stderr, stdout } = await cellctl([
      "check",
      "--database-url",
      server.url("shop", "shop_owner"),
    ]);
    expect(stderr).toContain("the list of processes shows this password");
    expect(stderr).not.toContain(server.password);
    expect(stdout).toContain("wal_level = logical");
  });
});

/**
 * Hands each connection on, with a process number of its own invention, as PgBouncer does. Where it
 * is to share sessions, the real number is one and the same for all.
 */
async function startPooler(
  port: number,
  shared?: "shares sessions",
): Promise<{ port: number; close: () => Promise<void> }> {
  const pooler: Server = createServer((client) => {
    const upstream = connect(port, "127.0.0.1");
    const real = { pid: "" };
    upstream.on("data", (chunk) => {
      const announced = withOtherProcess(chunk, real);
      client.write(shared === undefined ? announced : withOnePid(announced, real.pid));
    });
    client.on("data", (chunk) => upstream.write(chunk));
    for (const [one, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      one.on("error", () => other.destroy()).on("close", () => other.destroy());
    }
  });
  await new Promise<void>((resolve) => pooler.listen(0, "127.0.0.1", () => resolve()));
  const address = z.object({ port: z.number() }).parse(pooler.address());
  let closed = false;
  const close = async () => {
    if (closed) return;
    closed = true;
    await new Promise((resolve) => pooler.close(resolve));
  };
  closing.push(close);
  return { port: address.port, close };
}

/** BackendKeyData: `K`, length 12, process, secret. */
function withOtherProcess(chunk: Buffer, real: { pid: string }): Buffer {
  const at = chunk.indexOf(Buffer.from([0x4b, 0, 0, 0, 12]));
  if (at < 0) return chunk;
  real.pid = String(chunk.readInt32BE(at + 5));
  const changed = Buffer.from(chunk);
  changed.writeInt32BE(123_456_789, at + 5);
  return changed;
}

/** The digits of the real number, wherever they stand, become as many ones. */
function withOnePid(chunk: Buffer, pid: string): Buffer {
  const at = pid === "" ? -1 : chunk.indexOf(pid);
  if (at < 0) return chunk;
  const changed = Buffer.from(chunk);
  changed.write("1".repeat(pid.length), at);
  return changed;
}
