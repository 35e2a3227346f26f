import { defineConfig } from "vitest/config";

// Apart from `npm test`, because it needs `terraform` on the PATH; .ci/run runs it where there is one.
export default defineConfig({
  test: {
    name: "terraform",
    include: ["tests/terraform/*.terraform.test.ts"],
    expect: { requireAssertions: true },
    testTimeout: 120_000,
    hookTimeout: 120_000,
    fileParallelism: false,
  },
});
