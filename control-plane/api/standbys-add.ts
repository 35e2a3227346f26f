/**
 * A standby of an operator's own: a database and an agent that somebody runs beside a cell's, registered
 * as an annex like any other. Nothing is made here; the keeper makes the stream once the row stands.
 */
import type { z } from "zod";
import type { Cell } from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import { defaultService } from "../../contract/service-route.ts";
import type { addStandbySchema } from "../../contract/standby-requests.ts";
import { must } from "../../runtime/assert.ts";
import { onePlan } from "../core/ops/machine.ts";
import { handObstacle } from "../core/standby/partners.ts";
import { cellStores, readCells } from "../store/fleet-store.ts";
import { lockNormalFleet } from "../store/routing-change.ts";
import { nextAnnexId } from "../store/standby/annex-ids.ts";
import { findStandby } from "../store/standby/read.ts";
import { insertStandby, rangeText } from "../store/standby/record.ts";
import { dryRunAnswer } from "./accept.ts";
import { requireCell } from "./cell-lookup.ts";
import type { Answer } from "./endpoint.ts";
import type { Work } from "./mutation.ts";
import { toStandby } from "./standbys-shape.ts";

type Wanted = z.output<typeof addStandbySchema>;

export async function addStandby(work: Work, wanted: Wanted): Promise<Answer> {
  const { tx } = work;
  await lockNormalFleet(tx);
  const origin = await requireCell(tx, wanted.origin);
  const host = await requireCell(tx, wanted.host);
  const cells = await readCells(tx);
  const obstacle = handObstacle(
    must(
      cells.find(({ id }) => id === origin.id),
      "origin",
    ),
    must(
      cells.find(({ id }) => id === host.id),
      "host",
    ),
  );
  if (obstacle !== undefined) {
    throw new CellError("STATE_CONFLICT", `${host.id} may not keep it: ${obstacle}.`, {
      nextSteps: ["cellctl cell ls", "cellctl standby ls"],
    });
  }
  requireStores(await cellStores(tx, origin.id), wanted);
  const { annex, generation } = await nextAnnexId(tx, origin.id, host.id);
  const text = `${annex} is to keep buckets ${rangeText(wanted.buckets)} of ${origin.id}; its agent has to run beside ${host.id}`;
  if (work.dryRun) {
    return dryRunAnswer(onePlan("standby.create", [{ action: "add", object: annex, text }]));
  }
  const { buckets, stores, endpoints } = wanted;
  const row = {
    ...{ annex, origin: origin.id, host: host.id, generation, buckets },
    provider: "logical" as const,
  };
  await work.record(null, { ...row, stores });
  const services = endpoints.length === 0 ? {} : { [defaultService]: { endpoints } };
  await insertStandby(tx, row, { services, stores, byHand: true });
  const made = must(await findStandby(tx, annex), annex);
  const body = { standby: toStandby(made, work.nowMs), next_steps: agentSteps(annex, wanted) };
  return { status: 201, body };
}

/** The stream of a store that the annex lacks would never begin. */
function requireStores(of: Cell["stores"], { origin, stores }: Wanted): void {
  for (const [name, store] of Object.entries(of)) {
    const isStreamed = (store.kind ?? "postgres") === "postgres" && store.ignore !== true;
    if (!isStreamed || stores[name] !== undefined) continue;
    throw new CellError(
      "VALIDATION_FAILED",
      `stores.${name}: ${origin} has this database, and the standby has to say where it keeps it`,
    );
  }
}

const agentSteps = (annex: string, { stores }: Wanted): readonly string[] => {
  const named = Object.entries(stores).map(([name, { database }]) => `--store ${name}=${database}`);
  const main = stores[defaultService]?.database ?? Object.values(stores)[0]?.database ?? "REF";
  const more = named.length > 1 ? ` ${named.slice(1).join(" ")}` : "";
  return [
    `cellctl token create ${annex} --role agent --subject ${annex}`,
    `cellctl agent --cell ${annex} --upstream URL --database-url ${main}${more} --token REF --control-plane URL`,
    "cellctl standby ls",
  ];
};
