/** The wire form of a standby, and the refusal where there is none. */
import { CellError } from "../../contract/errors.ts";
import { cellIdSchema } from "../../contract/ids.ts";
import { type Standby, standbySchema } from "../../contract/standby-api.ts";
import { lagMsOf, type StandbyView } from "../core/standby/standby-view.ts";
import type { Reader } from "../store/database.ts";
import { findStandby } from "../store/standby/read.ts";

export const toStandby = (one: StandbyView, nowMs: number): Standby => {
  const { annex, origin, host, provider, buckets, state, reason, lagBytes, keys, warm } = one;
  const lagMs = lagMsOf(one, nowMs);
  const [id, of, at] = [annex, origin, host].map((text) => cellIdSchema.parse(text));
  return standbySchema.parse({
    ...{ id, origin: of, host: at, provider, buckets, state, reason, lagBytes, keys, warm },
    lagSeconds: lagMs === null ? null : Math.round(lagMs) / 1000,
  });
};

export async function requireStandby(reader: Reader, id: string): Promise<StandbyView> {
  const found = await findStandby(reader, id);
  if (found !== undefined) return found;
  throw new CellError("STANDBY_UNKNOWN", `There is no standby ${id}.`, {
    nextSteps: ["cellctl standby ls"],
  });
}
