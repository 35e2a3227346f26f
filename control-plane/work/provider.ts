/**
 * The provider of cells, as the leader asks it. Every action may be asked twice. A cell that is created
 * gets a token of its own, minted here: the control plane keeps the hash, the provider the secret.
 */
import { CellError } from "../../contract/errors.ts";
import {
  type ProvidedCell,
  type ProviderAction,
  providedCellSchema,
} from "../../contract/provider-api.ts";
import type { StandbyProviderName } from "../../contract/standby-api.ts";
import { createJsonClient } from "../../runtime/http-client.ts";
import type { Random } from "../../runtime/random.ts";
import { hashSecret, newSecret } from "../api/auth.ts";
import { recordAudit } from "../store/audit.ts";
import type { Database } from "../store/database.ts";
import { holdsTerm } from "../store/leader.ts";
import { insertToken, revokeAgentTokens } from "../store/tokens.ts";

/** Creating a cell copies a database and starts three processes. */
const callTimeoutMs = 90_000;
const lookTimeoutMs = 5000;

export type Provider = {
  readonly look: (cell: string, signal: AbortSignal) => Promise<ProvidedCell>;
  readonly act: (
    cell: string,
    action: ProviderAction,
    request: {
      readonly op: string;
      readonly agentToken?: string;
      /** Of an annex that is created. */
      readonly annex?: {
        readonly origin: string;
        readonly host: string;
        readonly provider: StandbyProviderName;
      };
    },
    signal: AbortSignal,
  ) => Promise<ProvidedCell>;
  readonly close: () => Promise<void>;
};

export function createProvider(options: {
  readonly url: string;
  readonly token: string;
}): Provider {
  const client = createJsonClient({
    origin: options.url.replace(/\/$/, ""),
    token: options.token,
    unreachable: "PROVIDER_FAILED",
  });
  const path = (cell: string) => `/v1/cells/${encodeURIComponent(cell)}`;
  return {
    look: (cell, signal) =>
      client.call({
        method: "GET",
        path: path(cell),
        schema: providedCellSchema,
        timeoutMs: lookTimeoutMs,
        signal,
      }),
    act: (cell, action, body, signal) =>
      client.call({
        method: "POST",
        path: `${path(cell)}/${action}`,
        body,
        schema: providedCellSchema,
        timeoutMs: callTimeoutMs,
        signal,
      }),
    close: client.close,
  };
}

/** No provider is configured: cells are run by hand, and asking is an error with a way out. */
export const noProvider: Provider = {
  look: () => Promise.reject(missing()),
  act: () => Promise.reject(missing()),
  close: () => Promise.resolve(),
};

const missing = (): CellError =>
  new CellError("PROVIDER_FAILED", "this control plane has no provider (--provider-url)");

const systemActor = { name: "control-plane", role: "system" } as const;

/**
 * A fresh token for the agent of a cell that is being created; those given out before it end here.
 * Undefined: this process does not lead any more.
 */
export async function mintAgentToken(
  database: Database,
  random: Random,
  who: { readonly term: number; readonly nowMs: number },
  about: { readonly cell: string; readonly op: string },
): Promise<string | undefined> {
  const secret = newSecret(random);
  const id = `tok-${random.hex(6)}`;
  const { cell, op } = about;
  const minted = await database.transaction(async (tx) => {
    if (!(await holdsTerm(tx, who.term))) return false;
    const row = { id, name: `agent of ${cell}`, role: "agent", subject: cell } as const;
    const record = {
      actor: systemActor,
      action: "token.create",
      object: id,
      reason: `${op}: a token for the agent of ${cell}`,
      outcome: "accepted",
      after: row,
    };
    await recordAudit(tx, record, who.nowMs);
    await revokeAgentTokens(tx, cell, new Date(who.nowMs));
    await insertToken(tx, { ...row, hash: hashSecret(secret), expiresAt: null });
    return true;
  });
  return minted ? secret : undefined;
}
