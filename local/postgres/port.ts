/**
 * Ports of a local fleet: chosen once, remembered in the data folder, chosen anew when taken.
 *
 * Not from the range from which the system takes ports for outgoing connections (32768 and above on
 * Linux, 49152 on macOS): while a killed cell is down, a busy router's own connections would take
 * its port, and the cell would come back at another address.
 */
import { createServer, type Server } from "node:net";
import type { Random } from "../../runtime/random.ts";

const host = "127.0.0.1";
const lowest = 20_000;
const count = 12_000;
const attemptsMax = 200;

/** The wanted port if it is free, else another. A third process may still be faster than the caller. */
export async function choosePort(wanted: number | undefined, random: Random): Promise<number> {
  const [port = 0] = await choosePorts([wanted], random);
  return port;
}

/** All different: each is held until the last is found. */
export async function choosePorts(
  wanted: ReadonlyArray<number | undefined>,
  random: Random,
): Promise<number[]> {
  const held: Server[] = [];
  const ports: number[] = [];
  try {
    for (const wish of wanted) {
      const found = (wish === undefined ? undefined : await hold(wish)) ?? (await any(random));
      held.push(found.server);
      ports.push(found.port);
    }
    return ports;
  } finally {
    await Promise.all(held.map(close));
  }
}

export async function isPortFree(port: number): Promise<boolean> {
  const found = await hold(port);
  if (found !== undefined) await close(found.server);
  return found !== undefined;
}

type Held = { readonly server: Server; readonly port: number };

async function any(random: Random): Promise<Held> {
  for (let attempt = 0; attempt < attemptsMax; attempt += 1) {
    const found = await hold(lowest + Math.floor(random.unit() * count));
    if (found !== undefined) return found;
  }
  throw new Error(`no free port was found between ${lowest} and ${lowest + count}`);
}

function hold(port: number): Promise<Held | undefined> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(undefined));
    server.listen({ port, host, exclusive: true }, () => resolve({ server, port }));
  });
}

const close = (server: Server): Promise<void> =>
  new Promise((resolve) => {
    server.close(() => resolve());
  });
