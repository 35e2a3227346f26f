/**
 * For tests of `cellctl move`: a command line against answers as the control plane gives them, one after
 * the other. Used by tests alone.
 */
import { afterEach } from "vitest";
import {
  type Answers,
  cellctl,
  type RunOptions,
  type StubServer,
  startStub,
} from "./cli.fixture.ts";
import { sampleMove, samplePause } from "./samples.fixture.ts";

let stub: StubServer | undefined;
afterEach(async () => {
  await stub?.close();
  stub = undefined;
});

export async function against(answers: Answers, command: string, options: RunOptions = {}) {
  await stub?.close();
  stub = await startStub(answers);
  const env = { ...stub.env, ...options.env };
  const ran = await cellctl(command.split(" "), { ...options, env });
  return { ...ran, asked: stub.asked, bodies: stub.asked.map(({ text }) => bodyOf(text)) };
}
const bodyOf = (text: string): unknown => (text === "" ? undefined : JSON.parse(text));

export const id = "op_0m5abcdefghij";
export const soaking = sampleMove({ step: "soaking", version: 9, pause: samplePause, tries: 1 });
export const done = sampleMove({ step: "done", state: "done", version: 11, headline: "moved" });

/** Each look finds the next of these; the last stays. */
export function going(...moves: readonly unknown[]): Answers[string] {
  let at = 0;
  return () => {
    const body = moves[Math.min(at, moves.length - 1)];
    at += 1;
    return { body };
  };
}
