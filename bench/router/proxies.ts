/**
 * What is measured side by side: how each is configured and started. All of them look a tenant up
 * among the same tenants, keep connections to the cells open, set X-Forwarded-* and X-Request-Id and
 * can be asked for their counts; only the yardstick, `bare-undici`, does nothing of that.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { cellNames, cellOf, nginxProcess, nginxTempPaths, tenantCount, tenantId } from "./load.ts";
import { freePorts, hasCommand, type Pinned, proxyCore, startPinned } from "./processes.ts";

/** `+log`: writes one line per request to a file. */
export const proxyNames = [
  "bare-undici",
  "cellfleet",
  "cellfleet+log",
  "nginx",
  "nginx+log",
  "haproxy",
  "haproxy+log",
  "http-proxy",
  "@fastify/http-proxy",
  "@fastify/http-proxy+log",
] as const;
export type ProxyName = (typeof proxyNames)[number];

export type Running = Pinned & { readonly name: ProxyName; readonly port: number };

/** Undefined: it is not installed on this machine. */
export async function startProxy(
  name: ProxyName,
  folder: string,
  cellPorts: readonly number[],
): Promise<Running | undefined> {
  const { program, make } = recipes[name];
  if (program !== undefined && !hasCommand(program, ["-v"])) return undefined;
  const home = join(folder, name.replace(/\W+/g, "-"));
  mkdirSync(home, { recursive: true });
  const [port = 0, adminPort = 0] = await freePorts(2);
  const log = name.endsWith("+log");
  const command = make({ home, folder, port, adminPort, cellPorts, log });
  const outFile = join(home, "out");
  const pinned = await startPinned({ name, core: proxyCore, command, port, outFile });
  return { ...pinned, name, port };
}

type Setting = {
  readonly home: string;
  /** Of all: the table files. */
  readonly folder: string;
  readonly port: number;
  readonly adminPort: number;
  readonly cellPorts: readonly number[];
  readonly log: boolean;
};
type Recipe = {
  /** Undefined: comes with npm. */
  readonly program: string | undefined;
  readonly make: (setting: Setting) => readonly string[];
};

const node = (peer: string): Recipe => ({
  program: undefined,
  make: ({ folder, port, cellPorts, log }) => [
    process.execPath,
    "--disable-warning=DEP0060",
    resolve(import.meta.dirname, "peers", `${peer}.ts`),
    String(port),
    cellPorts.map((one) => `http://127.0.0.1:${one}`).join(","),
    join(folder, "tenants.txt"),
    log ? "log" : "",
  ],
});
const cellfleet: Recipe = {
  program: undefined,
  make: ({ folder, port, adminPort, log }) => [
    ...[process.execPath, resolve(import.meta.dirname, "..", "..", "bin", "cellctl.js"), "router"],
    ...["--listen", `127.0.0.1:${port}`, "--admin", `127.0.0.1:${adminPort}`],
    ...["--table", join(folder, "table.json"), "--access-log", log ? "on" : "off"],
  ],
};
const nginx: Recipe = { program: "nginx", make: makeNginx };
const haproxy: Recipe = { program: "haproxy", make: makeHaproxy };

const recipes: Readonly<Record<ProxyName, Recipe>> = {
  "bare-undici": node("bare-undici"),
  cellfleet,
  "cellfleet+log": cellfleet,
  nginx,
  "nginx+log": nginx,
  haproxy,
  "haproxy+log": haproxy,
  "http-proxy": node("http-proxy"),
  "@fastify/http-proxy": node("fastify-http-proxy"),
  "@fastify/http-proxy+log": node("fastify-http-proxy"),
};

/** The same tenants in the form of each. */
export function writeTenants(folder: string, cellPorts: readonly number[]): void {
  const tenants = Array.from({ length: tenantCount }, (_, at) => ({
    id: tenantId(at),
    cell: cellOf(at),
  }));
  const lines = (line: (id: string, cell: number) => string) =>
    tenants.map(({ id, cell }) => line(id, cell)).join("\n");
  writeFileSync(join(folder, "tenants.txt"), `${lines((id, cell) => `${id} ${cell}`)}\n`);
  writeFileSync(
    join(folder, "nginx.map"),
    lines((id, cell) => `${id} cell_${cellNames[cell]};`),
  );
  const haproxyMap = lines((id, cell) => `${id} cell_${cellNames[cell]}`);
  writeFileSync(join(folder, "haproxy.map"), `${haproxyMap}\n`);
  const cells = cellNames.map((name, at) => [
    name,
    { endpoints: [`http://127.0.0.1:${cellPorts[at]}`] },
  ]);
  const table = {
    tenantKey: [{ header: "x-tenant-id" }],
    cells: Object.fromEntries(cells),
    tenants: Object.fromEntries(tenants.map(({ id, cell }) => [id, cellNames[cell]])),
  };
  writeFileSync(join(folder, "table.json"), JSON.stringify(table));
}

function makeNginx({ home, folder, port, adminPort, cellPorts, log }: Setting): readonly string[] {
  const upstreams = cellNames.map(
    (name, at) =>
      `  upstream cell_${name} { server 127.0.0.1:${cellPorts[at]}; keepalive 256; keepalive_requests 100000000; }`,
  );
  const config = join(home, "nginx.conf");
  writeFileSync(
    config,
    `${nginxProcess(home)}
http {
  log_format line '$time_iso8601 $request_id $remote_addr $http_x_tenant_id $upstream_addr '
    '"$request" $status $bytes_sent $request_time $upstream_connect_time $upstream_header_time';
  access_log ${log ? `${join(home, "access.log")} line` : "off"};
  keepalive_requests 100000000;
${nginxTempPaths(home)}
  map_hash_max_size 262144;
  map_hash_bucket_size 128;
  map $http_x_tenant_id $cell { default ""; include ${join(folder, "nginx.map")}; }
${upstreams.join("\n")}
  server { listen 127.0.0.1:${adminPort}; location / { stub_status; } }
  server {
    listen 127.0.0.1:${port};
    location / {
      if ($cell = "") { return 404; }
      proxy_pass http://$cell;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Request-Id $request_id;
      proxy_set_header traceparent "00-$request_id-$connection-00";
      proxy_set_header Via "1.1 bench";
      add_header X-Request-Id $request_id;
      add_header X-Cell $cell;
    }
  }
}
`,
  );
  return ["nginx", "-p", home, "-c", config, "-e", "stderr"];
}

function makeHaproxy(setting: Setting): readonly string[] {
  const { home, folder, port, adminPort, cellPorts, log } = setting;
  const backends = cellNames.map(
    (name, at) => `backend cell_${name}\n  server one 127.0.0.1:${cellPorts[at]} maxconn 256\n`,
  );
  const config = join(home, "haproxy.cfg");
  writeFileSync(
    config,
    `global
  nbthread 1
  maxconn 4096
${log ? "  log stdout format raw local0" : ""}
defaults
  mode http
  http-reuse always
  timeout client 60s
  timeout server 60s
  timeout connect 2s
${log ? "  log global\n  option httplog" : ""}
frontend admin
  bind 127.0.0.1:${adminPort}
  stats enable
  http-request use-service prometheus-exporter if { path /metrics }
frontend public
  bind 127.0.0.1:${port}
  unique-id-format %[uuid()]
  unique-id-header X-Request-Id
  option forwardfor
  http-request del-header x-request-id
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header X-Forwarded-Proto http
  http-request set-header traceparent 00-%[uuid()]-00
  http-request set-header Via "1.1 bench"
  http-response set-header X-Request-Id %[unique-id]
  http-response set-header X-Cell %b
  use_backend %[req.hdr(x-tenant-id),map_str(${join(folder, "haproxy.map")},none)]
backend none
  http-request deny deny_status 404
${backends.join("")}`,
  );
  return ["haproxy", "-db", "-f", config];
}
