/** `cellctl cell readmit` against a small real HTTP server: what is asked, and what is sent. */
import { expect, test, vi } from "vitest";
import { against } from "./move.fixture.ts";

// Real sockets on a machine that may be busy with other things.
vi.setConfig({ testTimeout: 30_000 });

const answers = {
  "POST /v1/cells/cell-01/readmit": () => ({
    body: { id: "cell-01", state: "cordoned", next_steps: ["cellctl cell uncordon cell-01"] },
  }),
};

test("wants the name, sends the word about other copies, and says what is next", async () => {
  const command = "cell readmit cell-01 --reason looked --other-copies-off";
  const unsaid = await against(answers, command);
  expect([unsaid.code === 0, unsaid.asked]).toEqual([false, []]);
  const { code, stdout, stderr, bodies } = await against(answers, `${command} --confirm cell-01`);
  expect(code).toBe(0);
  expect(bodies).toEqual([{ otherCopiesOff: true, reason: "looked" }]);
  expect(stdout).toMatch(/cell-01 +cordoned/);
  expect(stderr).toContain("Next: cellctl cell uncordon cell-01");
});
