import { defineConfig } from "vitest/config";

// Three kinds of test, told apart by the file's name alone:
//   *.test.ts      beside the code, no I/O, milliseconds
//   *.pg.test.ts   beside the code, a real PostgreSQL
//   *.e2e.test.ts  in tests/e2e, real processes and sockets
const ignored = ["node_modules/**", "dist/**", ".cellfleet/**"];

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: "unit",
          include: ["**/*.test.ts"],
          exclude: [...ignored, "**/*.pg.test.ts", "**/*.e2e.test.ts"],
        },
      },
      {
        test: {
          name: "pg",
          include: ["**/*.pg.test.ts"],
          exclude: ignored,
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
      {
        test: {
          name: "e2e",
          include: ["tests/e2e/**/*.e2e.test.ts"],
          testTimeout: 120_000,
          hookTimeout: 120_000,
          fileParallelism: false,
        },
      },
    ],
  },
});
