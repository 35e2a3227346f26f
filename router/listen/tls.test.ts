/** TLS towards clients, through a whole router: which certificate, which host, which protocol. */
import { rm, writeFile } from "node:fs/promises";
import { connect as connectHttp2 } from "node:http2";
import { connect as connectPlain } from "node:net";
import { join } from "node:path";
import { type ConnectionOptions, connect, type TLSSocket } from "node:tls";
import { beforeEach, describe, expect, test, vi } from "vitest";
import { createAuthority, type Issued } from "../../runtime/tls/certificates.fixture.ts";
import type { Router } from "../run.ts";
import { createBench, metric, of, until } from "../running.fixture.ts";
import { covers, indexCertificates } from "./certificate-index.ts";
import { createListenerBench, ok } from "./listener.fixture.ts";

vi.setConfig({ testTimeout: 30_000 });
const bench = createBench();
const listeners = createListenerBench();
const authority = createAuthority();
const clients = createAuthority("Clients");

const put = async (name: string, { cert, key }: Issued) => {
  await writeFile(join(bench.dir(), `${name}.crt`), cert);
  await writeFile(join(bench.dir(), `${name}.key`), key);
};

let echo = "";
beforeEach(async () => {
  await put("acme", authority.issue(["acme.test", "*.acme.test"]));
  await put("globex", authority.issue(["globex.test", "127.0.0.1"]));
  echo = await bench.startApp((req, res) => res.end(JSON.stringify(req.headers)));
});

const start = (flags: Record<string, unknown> = {}) =>
  bench.startStatic(
    { cells: { a: { endpoints: [echo] } }, tenants: { acme: "a" } },
    { tls: "127.0.0.1:0", tlsCerts: bench.dir(), tlsReloadMs: 3_600_000, ...flags },
  );

type Handshake = { readonly socket: TLSSocket; readonly names: string };

function handshake(port: number, options: ConnectionOptions): Promise<Handshake> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: "127.0.0.1", port, ca: authority.cert, ...options }, () =>
      resolve({ socket, names: socket.getPeerCertificate().subjectaltname ?? "" }),
    );
    socket.once("error", reject);
    bench.closers.push(async () => socket.destroy());
  });
}
const trusting = { checkServerIdentity: () => undefined };

/** One request on a connection of its own; status, and the body. */
async function askTls(port: number, host: string, options: ConnectionOptions = {}) {
  const { socket } = await handshake(port, { servername: host, ...options });
  let text = "";
  socket.on("data", (chunk) => {
    text += chunk;
  });
  const closed = new Promise((resolve) => socket.once("close", resolve));
  socket.write(`GET / HTTP/1.1\r\nHost: ${host}\r\nX-Tenant-Id: acme\r\nConnection: close\r\n\r\n`);
  await closed;
  return { status: Number(text.slice(9, 12)), text };
}

function askHttp2(router: Router, servername: string, headers: Record<string, string>) {
  const session = connectHttp2(`https://${servername}:${router.tlsPort}`, {
    ca: authority.cert,
    createConnection: () =>
      connect({
        ...{ host: "127.0.0.1", port: router.tlsPort ?? 0, servername },
        ...{ ca: authority.cert, ALPNProtocols: ["h2"] },
      }),
  });
  session.on("error", () => {});
  bench.closers.push(async () => session.destroy());
  return new Promise<{ status: number; code: unknown; text: string }>((resolve, reject) => {
    const stream = session.request({ ":path": "/", "x-tenant-id": "acme", ...headers });
    let text = "";
    let head: Record<string, unknown> = {};
    stream.on("response", (got) => {
      head = got;
    });
    stream.on("data", (chunk) => {
      text += chunk;
    });
    stream.once("error", reject);
    stream.once("end", () =>
      resolve({ status: Number(head[":status"]), code: head["x-cellfleet-error"], text }),
    );
  });
}

describe("which certificate", () => {
  test("is chosen by the name of the handshake, by wildcards too", async () => {
    const { router } = await start();
    const port = router.tlsPort ?? 0;
    for (const [servername, names] of [
      ["acme.test", /DNS:acme.test/],
      ["eu.acme.test", /DNS:acme.test/],
      ["globex.test", /DNS:globex.test/],
    ] as const) {
      expect((await handshake(port, { servername })).names).toMatch(names);
    }
    // Without a default there is no certificate for a name that nobody has, nor for none.
    for (const servername of ["a.eu.acme.test", "initech.test", ""]) {
      await expect(handshake(port, { servername, ...trusting })).rejects.toThrow();
    }
    const failed = 'cellfleet_router_tls_handshakes_failed_total{reason="protocol"}';
    await until(async () => expect(await metric(router, failed)).toBe(3));
  });

  test("serves names that nobody has, if it is made the default one", async () => {
    const { router } = await start({ tlsDefault: "globex" });
    for (const servername of ["initech.test", ""]) {
      const { names } = await handshake(router.tlsPort ?? 0, { servername, ...trusting });
      expect(names).toMatch(/globex.test/);
    }
  });

  test("is the longest lasting one of several for a name", () => {
    const one = (name: string, names: string[], notAfterMs: number) => ({
      name,
      names,
      notAfterMs,
    });
    const all = [one("a", ["x.test"], 1), one("b", ["*.test"], 3), one("c", ["x.test"], 2)];
    const { find } = indexCertificates(all, "a");
    const found = ["x.test", "X.TEST", "y.test", "z.y.test", "test", undefined].map(
      (name) => find(name)?.name,
    );
    expect(found).toEqual(["c", "c", "b", "a", "a", "a"]);
    const cert = one("d", ["acme.test", "*.acme.test", "127.0.0.1", "::1"], 1);
    const hosts = ["acme.test", "a.acme.test", "127.0.0.1", "[0:0::1]"];
    expect(hosts.map((host) => covers(cert, host))).toEqual([true, true, true, true]);
    const others = ["b.a.acme.test", ".acme.test", "*.acme.test", "evilacme.test", "[::2]"];
    expect(others.filter((host) => covers(cert, host))).toEqual([]);
  });
});

describe("which host", () => {
  test("only one that the certificate speaks for, and the cell hears of https", async () => {
    const { router } = await start();
    const port = router.tlsPort ?? 0;
    const good = await askTls(port, "acme.test");
    expect(good.status).toBe(200);
    expect(good.text).toMatch(/"x-forwarded-proto":"https"/);
    expect((await askTls(port, "eu.acme.test", { servername: "acme.test" })).status).toBe(200);
    const wrong = await askTls(port, "globex.test", { servername: "acme.test" });
    expect(wrong.status).toBe(421);
    expect(wrong.text).toMatch(/x-cellfleet-error: HOST_MISDIRECTED/);
    // In clear nobody has promised anything.
    expect(good.text).not.toMatch(/"x-forwarded-proto":"http"/);
  });

  test("of streams as well, whose authority is their own", async () => {
    const { router } = await start();
    const good = await askHttp2(router, "acme.test", { ":authority": "EU.acme.test:443" });
    expect(good.status).toBe(200);
    expect(JSON.parse(good.text)).toMatchObject({
      ...{ host: "EU.acme.test:443", "x-forwarded-proto": "https", via: "2 cellfleet-router" },
    });
    const wrong = await askHttp2(router, "acme.test", { ":authority": "globex.test" });
    expect(wrong).toMatchObject({ status: 421, code: "HOST_MISDIRECTED" });
  });

  test("a connection without a name is that of the default certificate", async () => {
    const { router } = await start({ tlsDefault: "globex" });
    const port = router.tlsPort ?? 0;
    expect((await askTls(port, "127.0.0.1", { servername: "" })).status).toBe(200);
    const wrong = await askTls(port, "acme.test", { servername: "", ...trusting });
    expect(wrong.status).toBe(421);
  });
});

describe("certificates that change", () => {
  const expiry = (name: string) =>
    `cellfleet_router_tls_certificate_expiry_seconds{name="${name}"}`;

  test("are served when their files change, and bad ones are not", async () => {
    const { router, lines } = await start();
    const port = router.tlsPort ?? 0;
    const days = async () => ((await metric(router, expiry("acme"))) ?? 0) / 86_400;
    expect(await days()).toBeCloseTo(10, 0);
    await put("acme", authority.issue(["acme.test", "new.test"], 20));
    // By the watch alone: nothing was asked to read again.
    await until(async () => expect(await days()).toBeCloseTo(20, 0));
    expect((await handshake(port, { servername: "new.test" })).names).toMatch(/new.test/);

    const bad = authority.issue(["acme.test"], 30);
    await put("acme", { cert: bad.cert, key: authority.issue(["acme.test"]).key });
    await router.reload();
    await put("globex", authority.issue(["globex.test"], -1));
    await router.reload();
    expect(of(lines, "tls.refused").map(({ name }) => name)).toEqual(
      expect.arrayContaining(["acme", "globex"]),
    );
    const refused = 'cellfleet_router_tls_certificates_refused_total{for="clients"}';
    expect(await metric(router, refused)).toBeGreaterThan(1);
    expect((await handshake(port, { servername: "new.test" })).names).toMatch(/new.test/);
    expect((await handshake(port, { servername: "globex.test" })).names).toMatch(/globex/);

    for (const end of ["crt", "key"]) await rm(join(bench.dir(), `globex.${end}`));
    await router.reload();
    expect(await metric(router, expiry("globex"))).toBeUndefined();
    await expect(handshake(port, { servername: "globex.test" })).rejects.toThrow();
  });

  test("may stand in a list", async () => {
    const list = "- {name: shop, cert: acme.crt, key: acme.key}\n";
    await writeFile(join(bench.dir(), "certificates.yaml"), list);
    const { router } = await start({ tlsCerts: join(bench.dir(), "certificates.yaml") });
    expect((await askTls(router.tlsPort ?? 0, "acme.test")).status).toBe(200);
    expect(await metric(router, expiry("shop"))).toBeGreaterThan(0);
  });

  test.each([
    [{ tlsDefault: "nobody" }, /no certificate nobody/],
    [{ tlsCerts: "/nowhere" }, /no certificate to serve in \/nowhere/],
    [{ tlsClientCa: "/nowhere" }, /\/nowhere cannot be read/],
    [{ tls: undefined }, /--tls and --tls-certs need each other/],
  ])("settings that cannot be meant are refused: %j", async (flags, text) => {
    await expect(start(flags)).rejects.toThrow(text);
  });
});

describe("who connects", () => {
  test("shows a certificate where clients must have one", async () => {
    await writeFile(join(bench.dir(), "clients.pem"), clients.cert);
    const { router } = await start({ tlsClientCa: join(bench.dir(), "clients.pem") });
    const port = router.tlsPort ?? 0;
    const known = clients.issue(["somebody"]);
    expect((await askTls(port, "acme.test", known)).status).toBe(200);
    for (const stranger of [{}, authority.issue(["somebody"])]) {
      const answer = await askTls(port, "acme.test", stranger).catch(() => ({ status: 0 }));
      expect(answer.status || 0).toBe(0);
    }
  });

  test("speaks TLS 1.2 at least, and has a time for its handshake", async () => {
    const { router } = await start();
    const old: ConnectionOptions = {
      ...{ minVersion: "TLSv1", maxVersion: "TLSv1.1", ciphers: "DEFAULT:@SECLEVEL=0" },
    };
    await expect(
      handshake(router.tlsPort ?? 0, { servername: "acme.test", ...old }),
    ).rejects.toThrow(/protocol version|unsupported|alert/i);
    const newer = { servername: "acme.test", maxVersion: "TLSv1.2" } as const;
    expect((await handshake(router.tlsPort ?? 0, newer)).socket.getProtocol()).toBe("TLSv1.2");

    const { cert, key } = authority.issue(["acme.test"]);
    const shared = { cert, key, minVersion: "TLSv1.2" } as const;
    const { port, told } = await listeners.start(ok, {
      protocol: "tls",
      limits: { handshakeMs: 100 },
      certificates: {
        ...{ find: () => undefined, covers: () => true, shared: () => shared },
        ...{ onChange: () => {}, list: () => [], reload: async () => {}, close: async () => {} },
      },
    });
    const silent = connectPlain(port, "127.0.0.1");
    silent.on("error", () => {});
    await new Promise((resolve) => silent.once("close", resolve));
    await until(() => expect(told).toEqual(["timeout"]));
  });

  test("clear text on the port of TLS is no request", async () => {
    const { router } = await start();
    const socket = connectPlain(router.tlsPort ?? 0, "127.0.0.1");
    let text = "";
    socket.on("data", (chunk) => {
      text += chunk.toString("latin1");
    });
    socket.write("GET / HTTP/1.1\r\nHost: acme.test\r\n\r\n");
    await new Promise((resolve) => socket.once("close", resolve));
    expect(text).not.toMatch(/HTTP\/1.1/);
  });
});
