/** The models at larger sizes than a test has time for: `node model/main.ts --deep`; without, the quick ones. */
import { explore, tell } from "./explore.ts";
import { plannedMove } from "./planned-move.ts";
import { takeover } from "./takeover.ts";

const isDeep = process.argv.includes("--deep");
const statesMax = isDeep ? 3_000_000 : 200_000;
const move = { writes: 1, jobs: 0, executorsMax: 2, triesMax: 1 };
const cell = { restartsMax: 0, partnerRestartsMax: 0, listChanges: false, write: true };
const deepMove = { writes: 1, jobs: 1, executorsMax: 3, triesMax: 2 };

const results = [
  ["planned move", () => explore(plannedMove(isDeep ? deepMove : move), statesMax)],
  ["takeover", () => explore(takeover(isDeep ? { ...cell, restartsMax: 1 } : cell), statesMax)],
  [
    "takeover, partners restart",
    () => explore(takeover({ ...cell, partnerRestartsMax: 1, write: isDeep }), statesMax),
  ],
  [
    "takeover, partners change",
    () => explore(takeover({ ...cell, listChanges: true, write: isDeep }), statesMax),
  ],
] as const;

for (const [name, look] of results) {
  const result = look();
  console.log(`${name}: ${tell(result)}`);
  if (result.kind !== "holds") process.exitCode = 1;
}
