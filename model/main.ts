/** The models at larger sizes than a test has time for: `node model/main.ts --deep`; without, the quick ones. */
import { explore, tell } from "./explore.ts";
import { plannedMove } from "./planned-move.ts";
import { restore } from "./restore.ts";
import { takeover } from "./takeover.ts";

const isDeep = process.argv.includes("--deep");
const statesMax = isDeep ? 3_000_000 : 200_000;
const move = { writes: 1, jobs: 0, executorsMax: 2, triesMax: 1 };
const cell = { restartsMax: 0, partnerRestartsMax: 0, listChanges: false, write: true };
const often = isDeep ? 3 : 1;
const restored = { changesMax: often, lossesMax: often, takeovers: false, freezing: true };
const deepMove = { ...move, executorsMax: 3, triesMax: 2 };
const jobs = isDeep ? 1 : 0;
const changing = { ...cell, listChanges: true, write: false };

const results = [
  ["takeover", () => explore(takeover(isDeep ? { ...cell, restartsMax: 1 } : cell), statesMax)],
  ["restored control plane, moves", () => explore(restore(restored), statesMax)],
  [
    "restored control plane, takeovers",
    () => explore(restore({ ...restored, changesMax: 2, takeovers: true }), statesMax),
  ],
  [
    "takeover, partners restart",
    () => explore(takeover({ ...cell, partnerRestartsMax: 1, write: isDeep }), statesMax),
  ],
  ["planned move", () => explore(plannedMove(isDeep ? deepMove : move), statesMax)],
  ["planned move, background write", () => explore(plannedMove({ ...move, jobs }), statesMax)],
  ["takeover, partners change", () => explore(takeover(changing), statesMax)],
] as const;

for (const [name, look] of results) {
  const started = process.cpuUsage();
  const result = look();
  const seconds = Math.round(process.cpuUsage(started).user / 1e6);
  console.log(`${name}: ${tell(result)} (${seconds} s)`);
  if (result.kind !== "holds") process.exitCode = 1;
}
