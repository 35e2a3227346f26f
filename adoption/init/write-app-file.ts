/** Writes a `cellfleet.yaml` that a person goes on with. Pure; what it writes is read back before it counts. */
import { stringify } from "yaml";
import type { AppFileInput } from "../../contract/app-file.ts";
import { parseAppFile } from "../app-file.ts";

/** Throws CONFIG_INVALID when the answers do not make a valid file. */
export function writeAppFile(app: AppFileInput): string {
  const { version, name, tenantKey, tenants, services, stores } = app;
  const parts = [
    "# What one cell of this application consists of: cellctl dev --app cellfleet.yaml",
    stringify({ version, name }),
    "# Where a request names its tenant; the first that is present counts.",
    stringify({ tenantKey }),
    ...(tenants === undefined
      ? []
      : ["# Made by cellctl dev when they are missing.", stringify({ tenants })]),
    "# Each process gets PORT, CELL_ID, SERVICE, INSTANCE, CELLFLEET_AGENT_URL and the URLs of the stores.",
    stringify({ services }),
    ...(stores === undefined || Object.keys(stores).length === 0
      ? []
      : [
          "# A database per cell. `migrate` is run as the tables' owner; with `watch` only when those files change.",
          stringify({ stores }),
        ]),
  ];
  const text = parts.map((part) => part.trimEnd()).join("\n");
  const file = `${text.replaceAll(/\n(# )/g, "\n\n$1")}\n`;
  parseAppFile(file);
  return file;
}
