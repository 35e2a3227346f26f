/** What every peer in Node is started with: its port, the cells' addresses, and the tenants' cells. */
import { readFileSync } from "node:fs";
import { must } from "../../../runtime/assert.ts";

const [port = "", cells = "", tenants = ""] = process.argv.slice(2);

export const listenPort = Number(port);
export const cellUrls: readonly string[] = cells.split(",");

/** The URL of each tenant's cell, in a Map: one tenant a line, cell by its number. */
export function readTenants(): ReadonlyMap<string, string> {
  const lines = readFileSync(tenants, "utf8").trimEnd().split("\n");
  return new Map(
    lines.map((line) => {
      const [tenant = "", cell = ""] = line.split(" ");
      return [tenant, must(cellUrls[Number(cell)], "cell")];
    }),
  );
}
