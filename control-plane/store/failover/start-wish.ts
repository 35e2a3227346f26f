/** What a person asks of a failover that runs; its executor fulfils it at the next step, or was quicker. */
import { eq } from "drizzle-orm";
import type { Tx } from "../database.ts";
import { failover } from "../schema-standby.ts";

export const askFailover = (tx: Tx, id: string, wish: "abort" | "resume"): Promise<unknown> =>
  tx.update(failover).set({ wish }).where(eq(failover.op, id));
