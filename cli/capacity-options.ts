/** What a cell is made for, as options of the command line: the same for one created and one adopted. */
import type { Command } from "commander";
import { usage } from "./failures.ts";
import { type Options, text } from "./grammar.ts";

export const withCapacity = (command: Command): Command =>
  command
    .option("--capacity <tenants>", "how many tenants fit")
    .option("--capacity-bytes <bytes>", "how many bytes fit")
    .option("--capacity-rps <requests>", "how many requests per second it carries")
    .option("--max-tenant-share <share>", "largest share of the cell one tenant may have, 0 to 1");

const names: Readonly<Record<string, string>> = {
  tenants: "capacity",
  bytes: "capacityBytes",
  rps: "capacityRps",
  maxTenantShare: "maxTenantShare",
};

/** Only what was given; the control plane knows the rest. */
export function capacityOf(options: Options): Record<string, number> {
  const found: Record<string, number> = {};
  for (const [field, option] of Object.entries(names)) {
    const raw = text(options, option);
    if (raw === undefined) continue;
    const value = Number(raw);
    if (raw.trim() === "" || !Number.isFinite(value)) throw usage(`"${raw}" is not a number`);
    found[field] = value;
  }
  return found;
}
