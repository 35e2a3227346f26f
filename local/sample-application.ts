/** The application that `cellctl dev` runs when it is given no other: the sample, in cell/sample. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { parseManifest } from "../cell/store/manifest.ts";
import { defaultService } from "../contract/service-route.ts";
import type { LocalApplication } from "./application.ts";
import { sampleProgram } from "./programs.ts";

const sample = join(import.meta.dirname, "..", "cell", "sample");

export async function sampleApplication(): Promise<LocalApplication> {
  const schema = await readFile(join(sample, "schema.sql"), "utf8");
  const manifest = parseManifest(await readFile(join(sample, "cellfleet.schema.yaml"), "utf8"));
  return {
    name: "sample",
    stores: [
      {
        name: defaultService,
        database: "app",
        keyColumn: manifest.keyColumn,
        manifest,
        content: schema,
        everyStart: false,
        migrate: async ({ client }) => {
          await client.query("set role app_owner");
          await client.query(schema);
          await client.query("reset role");
        },
      },
    ],
    processes: [
      {
        name: "app",
        service: defaultService,
        listens: true,
        program: ({ cell, port, databaseUrls }) =>
          sampleProgram({ cell, port, databaseUrl: databaseUrls.get(defaultService) ?? "" }),
      },
    ],
    services: new Map([[defaultService, undefined]]),
    ownerLogsIn: false,
  };
}
