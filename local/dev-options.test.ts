import { describe, test } from "vitest";
import { parseDevFlags } from "./dev-options.ts";

describe("flags of cellctl dev", () => {
  test("absent means three cells, one router, the usual ports", ({ expect }) => {
    expect(parseDevFlags({})).toEqual({
      cells: 3,
      routers: 1,
      port: 8080,
      adminPort: 8081,
      controlPlanePort: 8090,
      ephemeral: false,
      demo: true,
      standbyPartners: 3,
      standby: "logical",
      standbyApplications: "warm",
      failover: "auto",
    });
  });

  test("ports left to the system may all be 0", ({ expect }) => {
    const flags = parseDevFlags({ port: "0", adminPort: "0", controlPlanePort: "0" });
    expect([flags.port, flags.adminPort, flags.controlPlanePort]).toEqual([0, 0, 0]);
  });

  test.for([
    [{ cells: "-1" }, "--cells"],
    [{ cells: "21" }, "--cells"],
    [{ cells: "many" }, "--cells"],
    [{ standbyPartners: "4" }, "--standby-partners"],
    [{ failover: "always" }, "--failover"],
    [{ port: "70000" }, "--port"],
    [{ adminPort: "8080" }, "must differ"],
    [{ ephemeral: true, data: "here" }, "leave out --data"],
  ] as const)("%o is refused, naming the flag", ([input, text], { expect }) => {
    expect(() => parseDevFlags(input)).toThrow(text);
  });
});
