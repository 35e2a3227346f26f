/** What one router holds, read from its own admin port: the answer to "but what does the router think?". */
import { z } from "zod";
import { routerSchema } from "../contract/control-api.ts";
import { CellError } from "../contract/errors.ts";
import { createJsonClient } from "../runtime/http-client.ts";
import type { Api } from "./api.ts";
import type { View } from "./render/output.ts";
import type { Session } from "./session.ts";

const timeoutMs = 15_000;

const tableView: View<Record<string, unknown>> = {
  id: (table) => String(table["revision"]),
  columns: [{ head: "REVISION", cell: (table) => String(table["revision"]) }],
  details: (table) =>
    Object.entries(table).map(([name, value]) => [
      name,
      typeof value === "object" ? JSON.stringify(value) : String(value),
    ]),
};

export async function printTable(session: Session, named: string | undefined): Promise<number> {
  const api = await session.api();
  const admin = await adminOf(api, named);
  const client = createJsonClient({ origin: admin, unreachable: "CONTROL_PLANE_UNREACHABLE" });
  try {
    const schema = z.record(z.string(), z.unknown());
    const table = await client.call({ method: "GET", path: "/table", schema, timeoutMs });
    await session.out.one(table, tableView);
    return 0;
  } catch (error) {
    if (!(error instanceof CellError)) throw error;
    throw new CellError(
      error.code,
      `the router at ${admin} does not tell its table: ${error.message}`,
      {
        cause: error.cause,
        nextSteps: ["cellctl router ls"],
      },
    );
  } finally {
    await client.close();
  }
}

async function adminOf(api: Api, named: string | undefined): Promise<string> {
  for await (const { items } of api.pages("/v1/routers", routerSchema)) {
    const found = items.find(({ id, live }) => (named === undefined ? live : id === named));
    if (found !== undefined) return found.admin;
  }
  throw new CellError(
    "NOT_FOUND",
    named === undefined ? "no router is live" : `there is no router "${named}"`,
    { nextSteps: ["cellctl router ls"] },
  );
}
