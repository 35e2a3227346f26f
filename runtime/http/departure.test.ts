import { expect, test } from "vitest";
import { Departure } from "./departure.ts";

test("whoever asks for the signal before or after hears the first reason", () => {
  const gone = new Departure();
  const heard: unknown[] = [];
  gone.signal.addEventListener("abort", () => heard.push(gone.signal.reason));
  expect(gone.signal.aborted).toBe(false);
  expect(gone.reason).toBeUndefined();
  gone.leave("client-gone");
  gone.leave("deadline");
  expect(heard).toEqual(["client-gone"]);
  expect(gone.reason).toBe("client-gone");

  const late = new Departure();
  late.leave("deadline");
  expect(late.signal.aborted).toBe(true);
  expect(late.signal.reason).toBe("deadline");
  expect(late.signal).toBe(late.signal);
});
