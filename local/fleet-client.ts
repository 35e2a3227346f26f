/** The control API as `cellctl dev` uses it: as any client does, with the first admin token. */
import type { z } from "zod";
import {
  acceptedSchema,
  cellSchema,
  createdTokenSchema,
  idempotencyHeader,
  keyspaceSchema,
  type Op,
  opSchema,
} from "../contract/control-api.ts";
import { CellError, isErrorCode } from "../contract/errors.ts";
import { defaultKeyspace } from "../contract/ids.ts";
import { routingSchema } from "../contract/routing-api.ts";
import type { GuardMode } from "../contract/routing-table.ts";
import type { ServiceRoute } from "../contract/service-route.ts";
import type { TenantSource } from "../contract/tenant-source.ts";
import type { Clock } from "../runtime/clock.ts";
import { createJsonClient } from "../runtime/http-client.ts";
import type { Random } from "../runtime/random.ts";

export type FleetClient = {
  readonly mintToken: (role: "router", subject: string) => Promise<string>;
  /** Creates the cell unless it exists, or existed; resolves when it is no longer being provisioned. */
  readonly ensureCell: (id: string) => Promise<"created" | "known" | "retired">;
  /** Creates the tenant unless it exists; resolves when its routers serve it. */
  readonly ensureTenant: (id: string) => Promise<"created" | "known">;
  /** Where requests name tenant and service, unless it is so already. */
  readonly ensureRouting: (rules: RoutingRules) => Promise<void>;
  /** Of the keyspace `default`, unless it is so already; refused when tenants live in another mode. */
  readonly ensureGuardMode: (mode: GuardMode) => Promise<void>;
  readonly close: () => Promise<void>;
};

export type RoutingRules = {
  readonly tenantSources: readonly TenantSource[];
  readonly serviceRoutes: readonly ServiceRoute[];
};

const callMs = 30_000;
const opMs = 120_000;
const longPollMs = 10_000;
const pauseMs = 100;
const reason = "cellctl dev";

type ClientOptions = {
  readonly origin: string;
  readonly token: string;
  readonly clock: Clock;
  readonly random: Random;
};

export function createFleetClient(options: ClientOptions): FleetClient {
  const { clock } = options;
  const { get, change, finish, close } = createCalls(options);

  const cellOrNothing = (id: string) =>
    get(`/v1/cells/${id}`, cellSchema).catch((error: unknown) => {
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
      const body = { name: subject, role, subject, reason };
      return (await change("POST", "/v1/tokens", body, createdTokenSchema)).secret;
    },
    ensureCell: async (id) => {
      if ((await cellOrNothing(id)) !== undefined) return provisioned(id);
      const body = { id, provider: "local", reason };
      await finish((await change("POST", "/v1/cells", body, acceptedSchema)).op);
      return "created";
    },
    ensureTenant: async (id) => {
      try {
        const body = { id, reason: "demo tenant of cellctl dev" };
        await finish((await change("POST", "/v1/tenants", body, acceptedSchema)).op);
        return "created";
      } catch (error) {
        if (isCode(error, "TENANT_EXISTS")) return "known";
        throw error;
      }
    },
    ensureRouting: async (rules) => {
      const current = await get("/v1/routing", routingSchema);
      if (
        sameText(current.tenantSources, rules.tenantSources) &&
        sameText(current.serviceRoutes, rules.serviceRoutes)
      ) {
        return;
      }
      const body = { ...rules, reason };
      await finish((await change("PUT", "/v1/routing", body, acceptedSchema)).op);
    },
    ensureGuardMode: async (guardMode) => {
      const path = `/v1/keyspaces/${defaultKeyspace}`;
      if ((await get(path, keyspaceSchema)).guardMode === guardMode) return;
      await finish((await change("PUT", path, { guardMode, reason }, acceptedSchema)).op);
    },
    close,
  };
}

function createCalls(options: ClientOptions) {
  const { clock, random } = options;
  const client = createJsonClient({ ...options, unreachable: "CONTROL_PLANE_UNREACHABLE" });

  const get = <T>(path: string, schema: z.ZodType<T>): Promise<T> =>
    client.call({ method: "GET", path, schema, timeoutMs: callMs });

  /** A control plane that was set back hears its cells and routers first; that is waited for. */
  async function change<T>(
    method: "POST" | "PUT",
    path: string,
    body: unknown,
    schema: z.ZodType<T>,
  ): Promise<T> {
    const deadline = clock.monotonicMs() + opMs;
    const headers = { [idempotencyHeader]: random.uuid() };
    for (;;) {
      try {
        return await client.call({ method, path, body, headers, schema, timeoutMs: callMs });
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
      const path = `/v1/ops/${seen.id}?after=${seen.version}&waitMs=${longPollMs}`;
      seen = await get(path, opSchema);
    }
    if (seen.state === "done") return;
    const code = seen.error?.code ?? "OP_FAILED";
    throw new CellError(
      isErrorCode(code) ? code : "OP_FAILED",
      `${seen.kind} ${seen.object} ${seen.state}: ${seen.error?.message ?? seen.headline}`,
      { nextSteps: seen.error?.next_steps ?? [] },
    );
  }

  return { get, change, finish, close: client.close };
}

const isCode = (error: unknown, ...codes: readonly string[]): boolean =>
  error instanceof CellError && codes.includes(error.code);

/** The same in the same order; an order that differs costs one operation more. */
const sameText = (one: unknown, other: unknown): boolean =>
  JSON.stringify(one) === JSON.stringify(other);
