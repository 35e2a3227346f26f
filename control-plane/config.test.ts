import { describe, expect, test } from "vitest";
import { CellError } from "../contract/errors.ts";
import { instanceName, parseControlPlaneConfig } from "./config.ts";

const least = { databaseUrl: "env:DATABASE_URL", signingKey: "key.json" };
const problemsOf = (flags: object): readonly unknown[] => {
  try {
    parseControlPlaneConfig(flags);
  } catch (error) {
    if (!(error instanceof CellError)) throw error;
    expect(error.code).toBe("CONFIG_INVALID");
    const { problems } = error.details;
    return Array.isArray(problems) ? problems : [];
  }
  return [];
};

describe("settings", () => {
  test("the least that is needed, and what stands for the rest", () => {
    expect(parseControlPlaneConfig(least)).toEqual({
      ...least,
      listen: { host: "127.0.0.1", port: 8090 },
      admin: { host: "127.0.0.1", port: 8091 },
      leaseTtl: 4000,
      leaseMode: "timed",
      failsafePromise: 1_200_000,
      connections: 20,
      allowHookCommands: false,
      logLevel: "info",
      standbyPartners: 3,
      standbyApplications: "warm",
      standby: "logical",
      goldPartnerLoss: "refuse",
      failover: "suggest",
    });
  });

  test("all problems at once, by the flag's name", () => {
    const problems = problemsOf({
      listen: "nowhere",
      admin: "127.0.0.1:99999",
      databaseUrl: "postgres://user:secret@host/db",
      leaseTtl: "soon",
      colour: "red",
    });
    const text = problems.join("\n");
    for (const name of ["--listen", "--admin", "--database-url", "--lease-ttl", "--signing-key"]) {
      expect(text).toContain(name);
    }
    expect(text).toContain("colour");
    expect(text).not.toContain("secret@");
  });

  test.each([
    [{ providerUrl: "http://127.0.0.1:1" }, "--provider-token"],
    [{ providerToken: "env:TOKEN" }, "--provider-token"],
    [{ leaseTtl: "900ms" }, "--lease-ttl"],
    [{ failsafePromise: "5s" }, "--failsafe-promise"],
    [{ leaseTtl: "48h" }, "--lease-ttl"],
    [{ instance: "a b" }, "--instance"],
    [{ connections: "1" }, "--connections"],
  ])("%o is refused at %s", (change, name) => {
    expect(problemsOf({ ...least, ...change }).join()).toContain(name);
  });

  test.each([
    ["90s", 90_000],
    ["20m", 1_200_000],
    ["6000ms", 6000],
    ["1h", 3_600_000],
  ])("a lease of %s", (leaseTtl, ms) => {
    expect(parseControlPlaneConfig({ ...least, leaseTtl }).leaseTtl).toBe(ms);
  });

  test("an IPv6 address stands in brackets", () => {
    const { listen } = parseControlPlaneConfig({ ...least, listen: "[::1]:8090" });
    expect(listen).toEqual({ host: "::1", port: 8090 });
  });

  test("a process has a name of its own, unless it is given one", () => {
    const config = parseControlPlaneConfig(least);
    expect(instanceName(config, "aa")).not.toBe(instanceName(config, "bb"));
    expect(instanceName({ ...config, instance: "blue" }, "aa")).toBe("blue");
  });
});
