/**
 * A control plane that stands still at one boundary of a move's step until it is told to go on, so that a
 * test can kill something at exactly that moment. Started as `node … <the flags of cellctl control-plane>`
 * with an IPC channel; everything but the standing still is the product.
 */
import { readFile } from "node:fs/promises";
import { z } from "zod";
import { parseControlPlaneConfig } from "../../control-plane/config.ts";
import { startControlPlane } from "../../control-plane/control-plane.ts";
import { systemClock } from "../../runtime/clock.ts";
import { systemRandom } from "../../runtime/random.ts";
import { resolveSecret } from "../../runtime/secret-ref.ts";
import { createSigner, privateKeySchema } from "../../runtime/signing.ts";
import { type Boundary, orderSchema } from "./boundary.ts";

let stopAt: Omit<Boundary, "op"> | undefined;
let goOn: () => void = () => {};
process.on("message", (message) => {
  const order = orderSchema.parse(message);
  if (order.kind === "stop-at") stopAt = order.at;
  else goOn();
});

async function stand(at: Boundary): Promise<void> {
  if (stopAt?.step !== at.step || stopAt.when !== at.when) return;
  stopAt = undefined;
  const told = new Promise<void>((resolve) => {
    goOn = resolve;
  });
  process.send?.({ kind: "standing", at });
  await told;
}

const env = process.env;
const config = parseControlPlaneConfig(flagsOf(process.argv.slice(2)));
const { providerUrl, providerToken, bootstrapToken } = config;
const control = await startControlPlane({
  listen: config.listen,
  admin: config.admin,
  databaseUrl: await resolveSecret(config.databaseUrl, env),
  connections: config.connections,
  signer: createSigner(
    privateKeySchema.parse(JSON.parse(await readFile(config.signingKey, "utf8"))),
  ),
  provider:
    providerUrl === undefined || providerToken === undefined
      ? undefined
      : { url: providerUrl, token: await resolveSecret(providerToken, env) },
  bootstrapToken:
    bootstrapToken === undefined ? undefined : await resolveSecret(bootstrapToken, env),
  leaseTtlMs: config.leaseTtl,
  instance: `stopping-${process.pid}`,
  clock: systemClock,
  random: systemRandom,
  logTo: {
    ...{ clock: systemClock, part: "control-plane", level: "info" },
    write: (line) => process.stdout.write(line),
  },
  onMoveBoundary: stand,
});
process.send?.({ kind: "started" });
process.once("disconnect", () => void control.close().then(() => process.exit(0)));

/** `--listen H:P` becomes `{listen: "H:P"}`. */
function flagsOf(args: readonly string[]): Record<string, string> {
  const words = z.array(z.string()).parse(args);
  const flags: Record<string, string> = {};
  for (let at = 0; at + 1 < words.length; at += 2) {
    const name = (words[at] ?? "")
      .replace(/^--/, "")
      .replace(/-./g, (two) => two.slice(1).toUpperCase());
    flags[name] = words[at + 1] ?? "";
  }
  return flags;
}
