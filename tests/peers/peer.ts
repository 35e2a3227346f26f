/** nginx and HAProxy as they come, each as a proxy to one port: started here, ended here. */
import { spawn, spawnSync } from "node:child_process";
import { mkdir, writeFile } from "node:fs/promises";
import { type AddressInfo, connect, createServer } from "node:net";
import { join } from "node:path";

export const peerKinds = ["nginx", "haproxy"] as const;
export type PeerKind = (typeof peerKinds)[number];

export type Peer = { readonly port: number; readonly close: () => Promise<void> };

export const isInstalled = (kind: PeerKind): boolean =>
  spawnSync(kind, ["-v"], { stdio: "ignore" }).error === undefined;

const startMsMax = 10_000;
const retryMs = 50;

export async function startPeer(kind: PeerKind, to: number, dir: string): Promise<Peer> {
  const port = await freePort();
  const home = join(dir, `${kind}-${port}`);
  await mkdir(home, { recursive: true });
  const file = join(home, "conf");
  await writeFile(file, kind === "nginx" ? nginxConf(port, to, home) : haproxyConf(port, to));
  const args = kind === "nginx" ? ["-p", home, "-c", file] : ["-db", "-f", file];
  const child = spawn(kind, args, { stdio: ["ignore", "ignore", "pipe"] });
  let said = "";
  child.stderr.on("data", (data) => {
    said = (said + data).slice(-2000);
  });
  const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
  const close = async () => {
    child.kill("SIGTERM");
    await ended;
  };
  const giveUpMs = performance.now() + startMsMax;
  while (!(await answers(port))) {
    if (performance.now() > giveUpMs || child.exitCode !== null) {
      await close();
      throw new Error(`${kind} does not start: ${said}`);
    }
    await new Promise((resolve) => setTimeout(resolve, retryMs));
  }
  return { port, close };
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

const answers = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });

// Connections to what stands behind are kept and shared: that is where one client's bytes meet another's.
const nginxConf = (port: number, to: number, home: string): string => `
daemon off;
worker_processes 1;
error_log ${home}/error.log;
pid ${home}/pid;
events { worker_connections 512; }
http {
  access_log off;
  client_body_temp_path ${home}/body;
  proxy_temp_path ${home}/proxy;
  fastcgi_temp_path ${home}/fastcgi;
  uwsgi_temp_path ${home}/uwsgi;
  scgi_temp_path ${home}/scgi;
  upstream next { server 127.0.0.1:${to}; keepalive 4; }
  server {
    listen 127.0.0.1:${port};
    location / {
      proxy_pass http://next;
      proxy_http_version 1.1;
      proxy_request_buffering off;
      proxy_set_header Host $http_host;
      proxy_set_header Connection "";
    }
  }
}
`;

const haproxyConf = (port: number, to: number): string => `
defaults
  mode http
  timeout connect 5s
  timeout client 20s
  timeout server 20s
  option http-keep-alive
  http-reuse always
frontend in
  bind 127.0.0.1:${port}
  default_backend next
backend next
  server next 127.0.0.1:${to}
`;
