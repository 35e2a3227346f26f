import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";

// `npm run test:long`: tests of the same kinds that take long, for machines that have the time.
const cores = Math.max(2, availableParallelism());
const expectations = { requireAssertions: true };

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: "long-pg",
          expect: expectations,
          sequence: { groupOrder: 0 },
          include: ["**/*.long.pg.test.ts"],
          exclude: ["node_modules/**"],
          maxWorkers: cores + 1,
          testTimeout: 240_000,
          hookTimeout: 120_000,
        },
      },
      {
        test: {
          name: "long-e2e",
          expect: expectations,
          sequence: { groupOrder: 1 },
          include: ["tests/e2e/**/*.long.e2e.test.ts"],
          testTimeout: 240_000,
          hookTimeout: 180_000,
          maxWorkers: 2,
        },
      },
    ],
  },
});
