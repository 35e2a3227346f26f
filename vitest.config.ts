import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";

// Three kinds of test, told apart by the file's name alone:
//   *.test.ts      beside the code, no I/O, milliseconds
//   *.pg.test.ts   beside the code, a real PostgreSQL
//   *.e2e.test.ts  in tests/e2e, real processes and sockets
// and, in a configuration of their own, *.terraform.test.ts, which need terraform on the PATH.
// What takes longer says `long` before its kind, and has vitest.long.config.ts.
const ignored = ["node_modules/**", "dist/**", ".cellfleet/**", "**/*.long.*.test.ts"];

// Vitest leaves one core to itself, and so half of a machine that has two. Its own share is small.
const cores = Math.max(2, availableParallelism());

// A test that asserts nothing cannot fail, so it is red.
const expectations = { requireAssertions: true };

export default defineConfig({
  test: {
    // One kind after the other, quickest first: fleets want the machine for themselves.
    projects: [
      {
        test: {
          name: "unit",
          expect: expectations,
          sequence: { groupOrder: 0 },
          include: ["**/*.test.ts"],
          exclude: [...ignored, "**/*.pg.test.ts", "**/*.e2e.test.ts", "**/*.terraform.test.ts"],
          maxWorkers: cores,
          // For hangs alone: a router with all its sockets may be slow on a busy machine.
          testTimeout: 30_000,
          hookTimeout: 30_000,
        },
      },
      {
        test: {
          name: "pg",
          expect: expectations,
          sequence: { groupOrder: 1 },
          include: ["**/*.pg.test.ts"],
          exclude: ignored,
          // They wait for leases, locks and servers about half of their time.
          maxWorkers: cores + 1,
          testTimeout: 120_000,
          hookTimeout: 120_000,
        },
      },
      {
        test: {
          name: "e2e",
          expect: expectations,
          sequence: { groupOrder: 2 },
          include: ["tests/e2e/**/*.e2e.test.ts"],
          exclude: ignored,
          testTimeout: 240_000,
          hookTimeout: 180_000,
          // Two fleets side by side: each waits for starts, leases and ends most of its time.
          maxWorkers: 2,
        },
      },
    ],
  },
});
