/** Printed commands name the fleet as the command before them did. */
import { expect, test } from "vitest";
import { carryFleet } from "./carry-fleet.ts";

test.each([
  ["cellctl move watch op_1", {}, "cellctl move watch op_1"],
  ["cellctl move watch op_1", { data: "/tmp/a b" }, "cellctl move watch op_1 --data '/tmp/a b'"],
  ["cellctl cell ls", { context: "prod" }, "cellctl cell ls --context prod"],
  ["cellctl check   (why)", { data: "x" }, "cellctl check --data x   (why)"],
  ["cellctl dev ps --data /y", { data: "y" }, "cellctl dev ps --data /y"],
  ["cellctl move --help", { data: "y" }, "cellctl move --help"],
  ["repeat the command", { data: "y" }, "repeat the command"],
])("%s with %j", (step, flags, printed) => {
  expect(carryFleet([step], flags)).toEqual([printed]);
});
