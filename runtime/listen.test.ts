/** A taken port is the operator's to mend, not a fault of ours. */
import { createServer } from "node:net";
import { expect, test } from "vitest";
import { listenOn } from "./listen.ts";

test("a port that is taken is named, with what to do", async () => {
  const first = createServer();
  const { port } = await listenOn(first, { host: "127.0.0.1", port: 0 });
  const second = createServer();
  try {
    await expect(listenOn(second, { host: "127.0.0.1", port })).rejects.toMatchObject({
      code: "CONFIG_INVALID",
      message: `Cannot listen on 127.0.0.1:${port}: another process listens there.`,
    });
  } finally {
    await new Promise((closed) => first.close(closed));
  }
});

test("an address that this machine does not have is named", async () => {
  const server = createServer();
  await expect(listenOn(server, { host: "192.0.2.1", port: 0 })).rejects.toMatchObject({
    code: "CONFIG_INVALID",
    message: "Cannot listen on 192.0.2.1:0: this machine has no such address.",
  });
});
