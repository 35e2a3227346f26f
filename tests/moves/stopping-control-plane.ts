/**
 * A control plane that stands still at one boundary of a step, of a move or a failover, until it is told to go on, so
 * that a test can kill something at exactly that moment. Started as `node … <the flags of cellctl control-plane>`
 * with an IPC channel; everything but the standing still is the product.
 */
import { z } from "zod";
import { parseControlPlaneConfig } from "../../control-plane/config.ts";
import { startControlPlane } from "../../control-plane/control-plane.ts";
import { controlPlaneOptions } from "../../control-plane/run.ts";
import { type Boundary, orderSchema } from "./boundary.ts";

let stopAt: Boundary | undefined;
let goOn: () => void = () => {};
process.on("message", (message) => {
  const order = orderSchema.parse(message);
  if (order.kind === "stop-at") stopAt = order.at;
  else goOn();
});

async function stand(at: Boundary): Promise<void> {
  if (stopAt?.of !== at.of || stopAt.step !== at.step || stopAt.when !== at.when) return;
  stopAt = undefined;
  const told = new Promise<void>((resolve) => {
    goOn = resolve;
  });
  process.send?.({ kind: "standing", at });
  await told;
}

const config = parseControlPlaneConfig(flagsOf(process.argv.slice(2)));
const control = await startControlPlane({
  ...(await controlPlaneOptions(config, process.env)),
  instance: `stopping-${process.pid}`,
  onMoveBoundary: (at) => stand({ of: "move", ...at }),
  onFailoverBoundary: (at) => stand({ of: "failover", ...at }),
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
