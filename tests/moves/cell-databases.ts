/** Cells' databases of a local fleet, as their superuser, whose password lies in the fleet's own folder. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import pg from "pg";
import type { TestFleet } from "../fleet.ts";

/** URLs, by cell. */
export async function superuserUrls(
  fleet: Pick<TestFleet, "dataDir" | "endpoints">,
): Promise<ReadonlyMap<string, string>> {
  const { cells } = await fleet.endpoints();
  return new Map(
    await Promise.all(
      Object.entries(cells).map(async ([cell, { database }]): Promise<[string, string]> => {
        const url = new URL(database);
        url.username = "postgres";
        const file = join(fleet.dataDir, "cells", cell, "password");
        url.password = (await readFile(file, "utf8")).trim();
        return [cell, url.href];
      }),
    ),
  );
}

export async function inDatabase<T>(
  url: string,
  work: (client: pg.Client) => Promise<T>,
): Promise<T> {
  const client = new pg.Client(url);
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}
