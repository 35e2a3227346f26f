/** The supply chain's checks: each goes red for what it is there for, and the real ones are run as they are. */
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test, vi } from "vitest";
import { z } from "zod";
import { judgeAudit } from "./audit.ts";
import { isAllowed, licenceFaults } from "./licences.ts";
import { type LockedPackage, readPackages } from "./packages.ts";
import { sbomFaults, shippedBill } from "./sbom.ts";

// npm itself is run, on a machine that may be busy with other things.
vi.setConfig({ testTimeout: 120_000 });

const root = join(import.meta.dirname, "..", "..");
const closing: (() => void)[] = [];
afterEach(() => {
  for (const close of closing.splice(0)) close();
});

const locked = (name: string, more: Partial<LockedPackage> = {}): LockedPackage => ({
  name,
  version: "1.0.0",
  licence: "MIT",
  dev: false,
  installed: true,
  ...more,
});

function run(args: readonly string[], env: Readonly<Record<string, string>> = {}) {
  return new Promise<{ code: number | null; stdout: string; stderr: string }>((resolve) => {
    const child = spawn(process.execPath, [join(import.meta.dirname, "main.ts"), ...args], {
      env: { ...process.env, ...env },
    });
    let stdout = "";
    let stderr = "";
    child.stdout.on("data", (chunk) => (stdout += String(chunk)));
    child.stderr.on("data", (chunk) => (stderr += String(chunk)));
    child.on("close", (code) => resolve({ code, stdout, stderr }));
  });
}

describe("licences", () => {
  test("of everything that is installed here are allowed", async () => {
    expect(licenceFaults(readPackages(root))).toEqual([]);
    expect(await run(["licences"])).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/shipped/),
    });
  });

  test.each([
    [locked("a", { licence: "GPL-3.0-only" }), ["a@1.0.0 (shipped) is under GPL-3.0-only"]],
    [locked("b", { licence: undefined }), ["b@1.0.0 (shipped) names no licence"]],
    [locked("c", { licence: "MPL-2.0" }), ["c@1.0.0 (shipped) is under MPL-2.0"]],
    [locked("d", { licence: "MPL-2.0", dev: true }), []],
    [locked("e", { licence: "AGPL-3.0", dev: true }), ["e@1.0.0 (tool) is under AGPL-3.0"]],
    [
      locked("f", { licence: "SEE LICENSE IN EULA.txt" }),
      ["f@1.0.0 (shipped) is under SEE LICENSE IN EULA.txt"],
    ],
    [
      locked("g", { licence: "Apache-2.0 WITH LLVM-exception" }),
      ["g@1.0.0 (shipped) is under Apache-2.0 WITH LLVM-exception"],
    ],
  ])("%j", (one, faults) => {
    expect(licenceFaults([locked("fine"), one])).toEqual(faults);
  });

  test("of nothing are a fault: a checker that found nothing must not be green", () => {
    expect(licenceFaults([])).toHaveLength(1);
  });

  test.each([
    ["MIT OR GPL-3.0", true],
    ["(MIT OR GPL-3.0)", true],
    ["MIT AND GPL-3.0", false],
    ["GPL-2.0 OR MIT AND GPL-3.0", false],
    ["(GPL-2.0 OR MIT) AND ISC", true],
    ["(MIT) AND (ISC)", true],
    ["(MIT) AND (GPL-3.0)", false],
    ["mit", false],
  ])("%s: %s", (expression, allowed) => {
    expect(isAllowed(expression, ["MIT", "ISC"])).toBe(allowed);
  });
});

describe("audit", () => {
  const report = (severity: string) =>
    JSON.stringify({
      auditReportVersion: 2,
      vulnerabilities: {
        undici: {
          severity,
          range: "<9",
          via: [{ title: "smuggling", url: "https://x.test/1" }, "ws"],
        },
      },
    });

  test.each([
    ["critical", "faults"],
    ["high", "faults"],
    ["moderate", "faults"],
    ["low", "clean"],
    ["info", "clean"],
  ])("%s: %s", (severity, kind) => {
    expect(judgeAudit(report(severity))).toMatchObject({ kind });
  });

  test("anything but a report is no clean bill", () => {
    for (const output of ["", "npm error", "{}", '{"vulnerabilities":{}}', report("dreadful")]) {
      expect(judgeAudit(output)).toMatchObject({ kind: "faults" });
    }
    expect(judgeAudit('{"message":"500 oh","statusCode":500}')).toMatchObject({ kind: "faults" });
    expect(judgeAudit('{"message":"405 no","statusCode":405}')).toMatchObject({
      kind: "unanswered",
      text: expect.stringContaining("audit not answered by this registry"),
    });
  });

  test("npm itself, asking a registry that knows an advisory, turns it red; one without the service does not", async () => {
    const advisory = {
      id: 1,
      url: "https://advisories.test/1",
      title: "Requests can be smuggled",
      severity: "high",
      vulnerable_versions: ">=0",
      cwe: [],
      cvss: { score: 8, vectorString: null },
    };
    const { version } = z
      .object({ version: z.string() })
      .parse(JSON.parse(readFileSync(join(root, "node_modules/commander/package.json"), "utf8")));
    const knows = await startRegistry({
      "/-/npm/v1/security/advisories/bulk": { commander: [advisory] },
      "/commander": {
        name: "commander",
        "dist-tags": { latest: version },
        versions: {
          [version]: { name: "commander", version, dist: { tarball: "https://x.test/x" } },
        },
      },
    });
    const red = await run(["audit"], { npm_config_registry: knows });
    expect(red).toMatchObject({ code: 1, stdout: "" });
    expect(red.stderr).toContain("high: commander");
    expect(red.stderr).toContain("Requests can be smuggled https://advisories.test/1");

    const clean = await startRegistry({ "/-/npm/v1/security/advisories/bulk": {} });
    expect(await run(["audit"], { npm_config_registry: clean })).toMatchObject({
      code: 0,
      stdout: "no advisory of moderate severity or more\n",
    });

    const without = await startRegistry({});
    expect(await run(["audit"], { npm_config_registry: without })).toMatchObject({
      code: 0,
      stdout: expect.stringContaining("audit not answered by this registry"),
    });
  });
});

describe("bill of materials", () => {
  test("npm's, cut to what is shipped, has every shipped package", async () => {
    const folder = mkdtempSync(join(tmpdir(), "sbom-"));
    closing.push(() => rmSync(folder, { recursive: true, force: true }));
    const file = join(folder, "sbom.cdx.json");
    expect(await run(["sbom", file])).toMatchObject({ code: 0, stderr: "" });
    const document: unknown = JSON.parse(readFileSync(file, "utf8"));
    const packages = readPackages(root);
    expect(sbomFaults(document, packages)).toEqual([]);
    expect(document).toMatchObject({ metadata: { component: { name: "cellfleet" } } });
    for (const name of ["zod", "pg", "undici"]) {
      expect(document).toMatchObject({
        components: expect.arrayContaining([expect.objectContaining({ name })]),
      });
    }
  });

  const component = (name: string, version = "1.0.0") => ({
    "bom-ref": `${name}@${version}`,
    name,
    version,
    purl: `pkg:npm/${name}@${version}`,
  });
  const bill = (...components: unknown[]) => ({
    bomFormat: "CycloneDX",
    specVersion: "1.5",
    metadata: { component: { name: "cellfleet", version: "1.0.0" } },
    components,
    dependencies: [{ ref: "a@1.0.0", dependsOn: ["tool@1.0.0"] }],
  });
  const packages = [
    locked("a"),
    locked("tool", { dev: true }),
    locked("elsewhere", { installed: false }),
  ];

  test("without one that is shipped, or with one that is not, is a fault", () => {
    expect(sbomFaults(bill(component("a")), packages)).toEqual([]);
    expect(sbomFaults(bill(component("a"), component("elsewhere")), packages)).toEqual([]);
    expect(sbomFaults(bill(), packages)).toEqual(["missing in the bill: a@1.0.0"]);
    expect(sbomFaults(bill(component("a", "2.0.0")), packages)).toHaveLength(2);
    expect(sbomFaults(bill(component("a"), component("tool")), packages)).toEqual([
      "in the bill, not in the lock: tool@1.0.0",
    ]);
    expect(sbomFaults({ bomFormat: "SPDX" }, packages).length).toBeGreaterThan(0);
  });

  test("is cut to what is shipped, in its list of dependencies too", () => {
    const cut = shippedBill(bill(component("a"), component("tool")), packages, {
      name: "cellfleet",
      version: "1.0.0",
    });
    expect(cut).toMatchObject({
      components: [component("a")],
      dependencies: [{ ref: "a@1.0.0", dependsOn: [] }],
    });
  });
});

async function startRegistry(answers: Readonly<Record<string, unknown>>): Promise<string> {
  const server: Server = createServer((request, response) => {
    request.resume();
    const found = answers[request.url ?? ""];
    response.writeHead(found === undefined ? 404 : 200, { "content-type": "application/json" });
    response.end(JSON.stringify(found ?? {}));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", () => resolve()));
  closing.push(() => server.close());
  const { port } = z.object({ port: z.number() }).parse(server.address());
  return `http://127.0.0.1:${port}`;
}
