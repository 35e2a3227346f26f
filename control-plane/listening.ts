/** A port of the control plane, until it is closed: who then waits for an answer asks another process. */
import type { Server } from "node:http";
import { listenOn } from "../runtime/listen.ts";
import type { Address } from "./config.ts";

type Listening = { readonly url: string; readonly close: () => Promise<void> };

/** Closing ends long polls too: what waits is asked again elsewhere. */
export async function listen(server: Server, at: Address): Promise<Listening> {
  const { port, address, family } = await listenOn(server, at);
  const host = family === "IPv6" ? `[${address}]` : address;
  return {
    url: `http://${host}:${port}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
