/** The first admin's token: made once for a secret that the operator chose, never made again. */

import { recordAudit } from "./audit.ts";
import type { Database } from "./database.ts";
import { findTokenByHash, insertToken } from "./tokens.ts";

/** A token with this hash that exists stays as it is, also when it is revoked. */
export async function ensureBootstrapToken(
  database: Database,
  token: { readonly id: string; readonly hash: string },
  nowMs: number,
): Promise<void> {
  await database.transaction(async (tx) => {
    if ((await findTokenByHash(tx, token.hash)) !== undefined) return;
    const row = { id: token.id, name: "bootstrap", role: "admin", subject: null } as const;
    await recordAudit(
      tx,
      {
        actor: { name: "control-plane", role: "system" },
        action: "token.create",
        object: token.id,
        reason: "the bootstrap token of the control plane's settings",
        outcome: "accepted",
        after: row,
      },
      nowMs,
    );
    await insertToken(tx, { ...row, hash: token.hash, expiresAt: null });
  });
}
