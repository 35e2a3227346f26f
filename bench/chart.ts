/** Draws `docs/bench-router.svg` from the newest result of `npm run bench -- router`. */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { chartSvg } from "./router/chart.ts";
import { resultSchema } from "./router/report.ts";

const results = resolve(import.meta.dirname, "results");
const chart = resolve(import.meta.dirname, "..", "docs", "bench-router.svg");

export function run(): void {
  // Their names sort by time.
  const newest = readdirSync(results)
    .filter((name) => /^router-.*\.json$/.test(name))
    .sort()
    .at(-1);
  if (newest === undefined) throw new Error("no result yet: npm run bench -- router");
  const result = resultSchema.parse(JSON.parse(readFileSync(resolve(results, newest), "utf8")));
  writeFileSync(chart, chartSvg(result));
  process.stdout.write(`docs/bench-router.svg, from bench/results/${newest}\n`);
}
