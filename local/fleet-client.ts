/** The control API as `cellctl dev` uses it: as any client does, with the first admin token. */
import type { z } from "zod";
import {
  acceptedSchema,
  cellSchema,
  createdTokenSchema,
  idempotencyHeader,
  type Op,
  opSchema,
} from "../contract/control-api.ts";
import { CellError, isErrorCode } from "../contract/errors.ts";
import type { Clock } from "../runtime/clock.ts";
import { createJsonClient } from "../runtime/http-client.ts";
import type { Random } from "../runtime/random.ts";

export type FleetClient = {
  readonly mintToken: (role: "router", subject: string) => Promise<string>;
  /** Creates the cell unless it exists, or existed; resolves when it is no longer being provisioned. */
  readonly ensureCell: (id: string) => Promise<"created" | "known" | "retired">;
  /** Creates the tenant unless it exists; resolves when its routers serve it. */
  readonly ensureTenant: (id: string) => Promise<"created" | "known">;
  readonly close: () => Promise<void>;
};

const callMs = 30_000;
const opMs = 120_000;
const longPollMs = 10_000;
const pauseMs = 100;

export function createFleetClient(options: {
  readonly origin: string;
  readonly token: string;
  readonly clock: Clock;
  readonly random: Random;
}): FleetClient {
  const { clock, random } = options;
  const client = createJsonClient({ ...options, unreachable: "CONTROL_PLANE_UNREACHABLE" });

  /** A control plane that was set back hears its cells and routers first; that is waited for. */
  async function post<T>(path: string, body: unknown, schema: z.ZodType<T>): Promise<T> {
    const deadline = clock.monotonicMs() + opMs;
    const headers = { [idempotencyHeader]: random.uuid() };
    for (;;) {
      try {
        return await client.call({
          method: "POST",
          path,
          body,
          headers,
          schema,
          timeoutMs: callMs,
        });
      } catch (error) {
        if (!isCode(error, "RECOVERING") || clock.monotonicMs() > deadline) throw error;
        await clock.sleep(pauseMs);
      }
    }
  }

  async function finish(op: Op): Promise<void> {
    const deadline = clock.monotonicMs() + opMs;
    let seen = op;
    while (seen.state === "pending" || seen.state === "running") {
      if (clock.monotonicMs() > deadline) {
        throw new CellError("OP_FAILED", `${seen.kind} ${seen.object} hangs: ${seen.headline}`);
      }
      seen = await client.call({
        method: "GET",
        path: `/v1/ops/${seen.id}?after=${seen.version}&waitMs=${longPollMs}`,
        schema: opSchema,
        timeoutMs: callMs,
      });
    }
    if (seen.state === "done") return;
    const code = seen.error?.code ?? "OP_FAILED";
    throw new CellError(
      isErrorCode(code) ? code : "OP_FAILED",
      `${seen.kind} ${seen.object} ${seen.state}: ${seen.error?.message ?? seen.headline}`,
      { nextSteps: seen.error?.next_steps ?? [] },
    );
  }

  const cellOrNothing = (id: string) =>
    client
      .call({ method: "GET", path: `/v1/cells/${id}`, schema: cellSchema, timeoutMs: callMs })
      .catch((error: unknown) => {
        if (isCode(error, "CELL_UNKNOWN", "NOT_FOUND")) return undefined;
        throw error;
      });

  /** A cell whose creation was interrupted: the control plane resumes it by itself. */
  async function provisioned(id: string): Promise<"known" | "retired"> {
    const deadline = clock.monotonicMs() + opMs;
    for (;;) {
      const cell = await cellOrNothing(id);
      if (cell?.state === "retired") return "retired";
      if (cell !== undefined && cell.state !== "provisioning") return "known";
      if (clock.monotonicMs() > deadline) {
        throw new CellError("OP_FAILED", `the cell ${id} is still being provisioned`, {
          nextSteps: ["cellctl op ls"],
        });
      }
      await clock.sleep(pauseMs);
    }
  }

  return {
    mintToken: async (role, subject) => {
      const body = { name: subject, role, subject, reason: "cellctl dev" };
      return (await post("/v1/tokens", body, createdTokenSchema)).secret;
    },
    ensureCell: async (id) => {
      if ((await cellOrNothing(id)) !== undefined) return provisioned(id);
      const body = { id, provider: "local", reason: "cellctl dev" };
      await finish((await post("/v1/cells", body, acceptedSchema)).op);
      return "created";
    },
    ensureTenant: async (id) => {
      try {
        const accepted = await post(
          "/v1/tenants",
          { id, reason: "demo tenant of cellctl dev" },
          acceptedSchema,
        );
        await finish(accepted.op);
        return "created";
      } catch (error) {
        if (isCode(error, "TENANT_EXISTS")) return "known";
        throw error;
      }
    },
    close: client.close,
  };
}

const isCode = (error: unknown, ...codes: readonly string[]): boolean =>
  error instanceof CellError && codes.includes(error.code);
