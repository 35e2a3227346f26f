/** Ports: the system chooses them, the data folder remembers them, a taken one is chosen anew. */
import { createServer } from "node:net";

const host = "127.0.0.1";

/** The wanted port if it is free, else one the system chooses. Another process may still be faster. */
export async function choosePort(wanted: number | undefined): Promise<number> {
  return (wanted === undefined ? undefined : await tryPort(wanted)) ?? (await anyPort());
}

export const isPortFree = async (port: number): Promise<boolean> =>
  (await tryPort(port)) !== undefined;

async function anyPort(): Promise<number> {
  const port = await tryPort(0);
  if (port === undefined) throw new Error("the system has no free port");
  return port;
}

function tryPort(port: number): Promise<number | undefined> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(undefined));
    server.listen({ port, host, exclusive: true }, () => {
      const address = server.address();
      const bound = typeof address === "object" ? address?.port : undefined;
      server.close(() => resolve(bound));
    });
  });
}
