/**
 * The supply chain's checks, one per call, for `.ci/run`:
 * `main.ts audit | licences | sbom FILE`. Exit 0 and a line when all is well, else every fault.
 */
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { judgeAudit } from "./audit.ts";
import { licenceFaults } from "./licences.ts";
import { readPackages, readProduct } from "./packages.ts";
import { sbomFaults, shippedBill } from "./sbom.ts";

const root = join(import.meta.dirname, "..", "..");
const npmMsMax = 120_000;

function audit(): readonly string[] {
  const verdict = judgeAudit(npm(["audit", "--omit=dev", "--json"]));
  if (verdict.kind === "faults") return verdict.faults;
  console.log(verdict.text);
  return [];
}

function licences(): readonly string[] {
  const packages = readPackages(root);
  const faults = licenceFaults(packages);
  const shipped = packages.filter(({ dev }) => !dev).length;
  if (faults.length === 0)
    console.log(`${shipped} shipped packages and ${packages.length - shipped} tools`);
  return faults;
}

function sbom(file: string | undefined): readonly string[] {
  if (file === undefined) return ["name the file to write: main.ts sbom FILE"];
  const packages = readPackages(root);
  const everything: unknown = JSON.parse(npm(["sbom", "--sbom-format=cyclonedx"]));
  const bill = shippedBill(everything, packages, readProduct(root));
  const faults = sbomFaults(bill, packages);
  if (faults.length > 0) return faults;
  writeFileSync(file, `${JSON.stringify(bill, null, 2)}\n`);
  console.log(`written to ${file}`);
  return [];
}

/** What npm writes to standard output; a failure of npm is told by what is there, or is not. */
function npm(args: readonly string[]): string {
  const ran = spawnSync("npm", [...args], {
    cwd: root,
    encoding: "utf8",
    timeout: npmMsMax,
    maxBuffer: 64 * 1024 * 1024,
  });
  return ran.stdout === "" ? ran.stderr : ran.stdout;
}

const [what, file] = process.argv.slice(2);
const checks = { audit, licences, sbom: () => sbom(file) } as const;
const faults =
  what === "audit" || what === "licences" || what === "sbom"
    ? checks[what]()
    : ["name one check: audit, licences or sbom FILE"];
for (const fault of faults) console.error(fault);
process.exitCode = faults.length === 0 ? 0 : 1;
