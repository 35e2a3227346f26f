/**
 * Smuggling between readers: every case through the router with nginx and HAProxy before and behind it.
 * `node tests/peers/main.ts [--require]`. Without `--require` a proxy that is not installed is named and
 * left out; with it that is a failure.
 */
import { type Chain, tryChain } from "./chain.ts";
import { isInstalled, peerKinds } from "./peer.ts";

const missing = peerKinds.filter((kind) => !isInstalled(kind));
if (missing.length > 0) {
  console.log(`not installed: ${missing.join(", ")}`);
  if (process.argv.includes("--require")) process.exit(1);
}
const there = [undefined, ...peerKinds.filter((kind) => !missing.includes(kind))];
const chains: Chain[] = there.flatMap((before) => there.map((behind) => ({ before, behind })));
let failed = false;
for (const { before, behind } of chains) {
  const { cases, carried, findings } = await tryChain({ before, behind });
  const path = [before, "router", behind].filter((part) => part !== undefined).join(" → ");
  console.log(`${path}: ${cases} cases, ${carried} requests arrived, ${findings.length} findings`);
  for (const finding of findings) console.log(`  ${finding}`);
  failed ||= findings.length > 0;
}
process.exit(failed ? 1 : 0);
