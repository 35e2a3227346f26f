/** Moves by the control API of a local fleet, as a script would make them. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { cliTokenFile } from "../../cli/fleet.ts";
import { acceptedSchema, resolutionSchema } from "../../contract/control-api.ts";
import {
  type Move,
  type MoveOptions,
  type MoveStep,
  moveActedSchema,
  moveSchema,
  startedMovesSchema,
} from "../../contract/move-api.ts";
import { systemClock } from "../../runtime/clock.ts";
import { createJsonClient } from "../../runtime/http-client.ts";
import type { TestFleet } from "../fleet.ts";

export type MoveClient = Awaited<ReturnType<typeof openMoveClient>>;

const timeoutMs = 60_000;
/** Seldom: what is looked at is measured. */
const lookEveryMs = 150;

export async function openMoveClient(fleet: Pick<TestFleet, "dataDir" | "endpoints">) {
  const token = (await readFile(join(fleet.dataDir, cliTokenFile), "utf8")).trim();
  const origin = (await fleet.endpoints()).controlPlane.replace(/\/+$/, "");
  const client = createJsonClient({ origin, token, unreachable: "CONTROL_PLANE_UNREACHABLE" });
  const post = { method: "POST", timeoutMs } as const;
  const get = (id: string): Promise<Move> =>
    client.call({ method: "GET", path: `/v1/moves/${id}`, schema: moveSchema, timeoutMs });
  const one = (items: readonly Move[]): Move => {
    const [move] = items;
    if (move === undefined || items.length > 1) throw new Error(`${items.length} moves, not one`);
    return move;
  };
  return {
    get,
    start: async (
      tenants: readonly string[],
      to: string,
      options: Partial<MoveOptions>,
    ): Promise<Move> => {
      const body = { tenants, to, together: tenants.length, options };
      const path = "/v1/moves";
      return one((await client.call({ ...post, path, body, schema: startedMovesSchema })).items);
    },
    act: async (
      id: string,
      action: "switch" | "reverse" | "complete" | "cancel",
    ): Promise<Move> => {
      const path = `/v1/moves/${id}/${action}`;
      return (await client.call({ ...post, path, body: {}, schema: moveActedSchema })).move;
    },
    /** Until it has come to one of these steps; throws where it fails. */
    reaches: async (id: string, ...steps: readonly MoveStep[]): Promise<Move> => {
      for (;;) {
        const move = await get(id);
        if (steps.includes(move.step)) return move;
        if (move.state === "failed" || move.state === "cancelled") {
          throw new Error(`${id} is ${move.step}: ${move.headline} ${move.error?.message ?? ""}`);
        }
        await systemClock.sleep(lookEveryMs);
      }
    },
    createTenant: (id: string, cell: string) =>
      client.call({ ...post, path: "/v1/tenants", body: { id, cell }, schema: acceptedSchema }),
    resolve: (tenant: string) =>
      client.call({
        ...{ method: "GET", path: `/v1/route/resolve?tenant=${tenant}` },
        ...{ schema: resolutionSchema, timeoutMs },
      }),
    close: client.close,
  };
}
