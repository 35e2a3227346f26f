/** `cellctl cell lease-mode` against a small real HTTP server: what is sent, and what it prints of the answer. */
import { expect, test, vi } from "vitest";
import { against } from "./move.fixture.ts";

// Real sockets on a machine that may be busy with other things.
vi.setConfig({ testTimeout: 30_000 });

const answering = (settled: boolean) => ({
  "POST /v1/cells/cell-01/lease-mode": () => ({
    body: {
      ...{ id: "cell-01", mode: "manual", settled },
      next_steps: settled ? [] : ["cellctl cell get cell-01"],
    },
  }),
});

test("says whether the cell has acknowledged, and that it counts as manual until then", async () => {
  const command = "cell lease-mode cell-01 manual --reason switch";
  const { code, stdout, stderr, bodies } = await against(answering(false), command);
  expect(code).toBe(0);
  expect(bodies).toEqual([{ mode: "manual", reason: "switch" }]);
  expect(stdout).toMatch(/cell-01 +manual +not yet/);
  expect(stderr).toContain("counts as manual until it has acknowledged");
  expect(stderr).toContain("Next: cellctl cell get cell-01");
  const again = await against(answering(true), `${command} -o json`);
  expect(JSON.parse(again.stdout)).toMatchObject({ mode: "manual", settled: true });
});

test("wants a mode that there is, and a reason", async () => {
  for (const command of ["cell lease-mode cell-01 manual", "cell lease-mode cell-01 soon"]) {
    const { code, asked } = await against({}, command);
    expect([code, asked]).toEqual([64, []]);
  }
});
