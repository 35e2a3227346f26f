/**
 * The load and the origin: wrk with requests made beforehand, as an SDK's client sends them (eight
 * headers, a bearer token, a cookie, tenants at random), and an nginx that answers out of memory.
 */
import { execFile } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { z } from "zod";
import { loadCore, type Pinned, pinned, startPinned } from "./processes.ts";

export const cellNames = ["a", "b", "c", "d"] as const;
export const tenantCount = 100_000;
export const tenantId = (at: number): string => `tenant-${at}`;
/** Neighbours by number live apart. */
export const cellOf = (at: number): number => (at * 7) % cellNames.length;

/** How large an answer is; the path under which the origin gives it. */
export const answers = { "1KiB": 1024, "64KiB": 64 * 1024, "1MiB": 1024 * 1024 } as const;
export type Answer = keyof typeof answers;

const requestsMade = 2048;
const wrkThreads = 1;

/** Reads requests in turn and writes one line of JSON when the run is over. */
const luaScript = (answer: Answer): string => `
local requests, at = {}, 0
math.randomseed(42)
init = function(args)
  for n = 1, ${requestsMade} do
    local tenant = math.random(0, ${tenantCount - 1})
    requests[n] = wrk.format("GET", "/${answer}/items/" .. n .. "?expand=lines", {
      ["Host"] = "api.example.test",
      ["User-Agent"] = "example-sdk/4.2.0 (linux; x64)",
      ["Accept"] = "application/json",
      ["Accept-Encoding"] = "gzip, br",
      ["Authorization"] = "Bearer " .. string.rep("k7Jq", 24),
      ["X-Tenant-Id"] = "tenant-" .. tenant,
      ["X-Request-Id"] = string.format("%032x", n),
      ["Cookie"] = "session=" .. string.rep("a1", 20)
    })
  end
end
request = function()
  at = at % ${requestsMade} + 1
  return requests[at]
end
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '\\nRESULT {"requests":%d,"us":%d,"bytes":%d,"errors":%d,"p50":%d,"p99":%d,"p999":%d}\\n',
    summary.requests, summary.duration, summary.bytes,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
`;

const resultSchema = z.strictObject({
  requests: z.number(),
  us: z.number(),
  bytes: z.number(),
  errors: z.number(),
  p50: z.number(),
  p99: z.number(),
  p999: z.number(),
});
/** Times in microseconds. */
export type LoadResult = z.output<typeof resultSchema>;

export type Load = {
  readonly port: number;
  readonly answer: Answer;
  readonly connections: number;
  readonly seconds: number;
};

export type LoadGenerator = (load: Load) => Promise<LoadResult>;

export function createLoad(folder: string): LoadGenerator {
  for (const answer of ["1KiB", "64KiB", "1MiB"] as const) {
    writeFileSync(scriptOf(folder, answer), luaScript(answer));
  }
  return async ({ port, answer, connections, seconds }) => {
    const [file = "", ...args] = pinned(loadCore, [
      ...["wrk", `-t${wrkThreads}`, `-c${connections}`, `-d${seconds}s`, "--timeout", "10s"],
      ...["-s", scriptOf(folder, answer), `http://127.0.0.1:${port}`],
    ]);
    const { stdout } = await promisify(execFile)(file, args);
    const line = /^RESULT (.*)$/m.exec(stdout)?.[1];
    if (line === undefined) throw new Error(`wrk said: ${stdout}`);
    return resultSchema.parse(JSON.parse(line));
  };
}

const scriptOf = (folder: string, answer: Answer): string => join(folder, `load-${answer}.lua`);

/** One nginx is all cells, each on a port of its own. */
export async function startOrigin(folder: string, ports: readonly number[]): Promise<Pinned> {
  const home = join(folder, "origin");
  for (const answer of ["64KiB", "1MiB"] as const) {
    mkdirSync(join(home, "files"), { recursive: true });
    writeFileSync(join(home, "files", answer), Buffer.alloc(answers[answer], "x"));
  }
  const config = join(home, "nginx.conf");
  const listens = ports.map((port) => `    listen 127.0.0.1:${port};`).join("\n");
  writeFileSync(
    config,
    `${nginxProcess(home)}
http {
  access_log off;
  keepalive_requests 100000000;
  sendfile on;
  open_file_cache max=10;
${nginxTempPaths(home)}
  server {
${listens}
    default_type application/octet-stream;
    location / { return 200 "${"x".repeat(answers["1KiB"])}"; }
    location /64KiB/ { root ${join(home, "files")}; try_files /64KiB =404; }
    location /1MiB/ { root ${join(home, "files")}; try_files /1MiB =404; }
  }
}
`,
  );
  return startPinned({
    name: "origin",
    core: loadCore,
    command: ["nginx", "-p", home, "-c", config, "-e", "stderr"],
    port: ports[0] ?? 0,
    outFile: join(home, "out"),
  });
}

/** The first lines of any nginx here: in the foreground, one worker, as who started the bench. */
export const nginxProcess = (home: string): string =>
  `${process.getuid?.() === 0 ? "user root root;" : ""}
daemon off;
worker_processes 1;
pid ${join(home, "pid")};
error_log stderr error;
events { worker_connections 4096; multi_accept on; }`;

/** Nobody may be asked for a folder that only root can write. */
export const nginxTempPaths = (home: string): string =>
  ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    .map((one) => `  ${one}_temp_path ${join(home, one)};`)
    .join("\n");
