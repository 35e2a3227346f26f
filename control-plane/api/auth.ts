/**
 * Who asks: a bearer token, of which the database keeps the SHA-256 only. Machine roles reach
 * `/v1/machine/*` and nothing else; people's roles reach everything but that.
 */
import { createHash } from "node:crypto";
import type { Role } from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import type { Random } from "../../runtime/random.ts";
import type { Database } from "../store/database.ts";
import { findTokenByHash } from "../store/tokens.ts";

export type Caller = {
  readonly tokenId: string;
  readonly name: string;
  readonly role: Role;
  /** The cell or router that a machine token speaks for. */
  readonly subject: string | null;
};

/** Weakest first; a stronger role may do all that a weaker one may. */
const ladder: readonly Role[] = ["viewer", "operator", "admin"];

export const hashSecret = (secret: string): string =>
  createHash("sha256").update(secret, "utf8").digest("hex");

/** 256 random bits behind a prefix that secret scanners can look for. */
export const newSecret = (random: Random): string => `cft_${random.hex(32)}`;

/** Throws UNAUTHENTICATED or TOKEN_EXPIRED. */
export async function authenticate(
  database: Database,
  authorization: string | null,
  nowMs: number,
): Promise<Caller> {
  const secret = /^Bearer ([\x21-\x7e]{1,512})$/i.exec(authorization ?? "")?.[1];
  const row =
    secret === undefined ? undefined : await findTokenByHash(database.read, hashSecret(secret));
  if (row === undefined || row.revokedAt !== null) {
    throw new CellError("UNAUTHENTICATED", "No valid token was presented.", {
      nextSteps: ["Send `Authorization: Bearer TOKEN`.", "cellctl token create"],
    });
  }
  if (row.expiresAt !== null && row.expiresAt.getTime() <= nowMs) {
    throw new CellError(
      "TOKEN_EXPIRED",
      `The token ${row.id} expired at ${row.expiresAt.toISOString()}.`,
      {
        nextSteps: ["cellctl token create"],
      },
    );
  }
  return { tokenId: row.id, name: row.name, role: row.role, subject: row.subject };
}

/** True when a caller of role `has` may use an endpoint of role `needs`. */
export function mayUse(has: Role, needs: Role): boolean {
  const rank = ladder.indexOf(needs);
  return rank < 0 ? has === needs : ladder.indexOf(has) >= rank;
}

/** Throws FORBIDDEN. */
export function requireRole(caller: Caller, needs: Role): void {
  if (mayUse(caller.role, needs)) return;
  throw new CellError(
    "FORBIDDEN",
    `This needs the role ${needs}; the token ${caller.tokenId} has the role ${caller.role}.`,
    { details: { needs, has: caller.role } },
  );
}

/** Throws FORBIDDEN when a machine token speaks for another cell or router than its own. */
export function requireSubject(caller: Caller, subject: string): void {
  if (caller.subject === subject) return;
  throw new CellError(
    "FORBIDDEN",
    `The token ${caller.tokenId} speaks for ${caller.subject ?? "nobody"}, not for ${subject}.`,
  );
}
