/** Bearer tokens: made, found by hash, revoked; never removed, so that the audit log keeps its names. */
import { and, asc, eq, gt, isNull } from "drizzle-orm";
import type { Role } from "../../contract/control-api.ts";
import type { Reader, Tx } from "./database.ts";
import { token } from "./schema.ts";

export type TokenRow = typeof token.$inferSelect;

export async function findTokenByHash(reader: Reader, hash: string): Promise<TokenRow | undefined> {
  const [row] = await reader.select().from(token).where(eq(token.hash, hash));
  return row;
}

export async function findToken(reader: Reader, id: string): Promise<TokenRow | undefined> {
  const [row] = await reader.select().from(token).where(eq(token.id, id));
  return row;
}

export const listTokens = (reader: Reader, after: string, limit: number): Promise<TokenRow[]> =>
  reader
    .select()
    .from(token)
    .where(and(gt(token.id, after), isNull(token.revokedAt)))
    .orderBy(asc(token.id))
    .limit(limit);

export type NewToken = {
  readonly id: string;
  readonly name: string;
  readonly role: Role;
  readonly subject: string | null;
  readonly hash: string;
  readonly expiresAt: Date | null;
};

/** A hash that is known already changes nothing and is reported as false. */
export async function insertToken(tx: Tx, row: NewToken): Promise<boolean> {
  const made = await tx.insert(token).values(row).onConflictDoNothing().returning({ id: token.id });
  return made.length === 1;
}

export async function revokeToken(tx: Tx, id: string, at: Date): Promise<void> {
  await tx
    .update(token)
    .set({ revokedAt: at })
    .where(and(eq(token.id, id), isNull(token.revokedAt)));
}

/** Every token that speaks for this cell: it is gone for good. */
export async function revokeAgentTokens(tx: Tx, cell: string, at: Date): Promise<void> {
  await tx
    .update(token)
    .set({ revokedAt: at })
    .where(and(eq(token.role, "agent"), eq(token.subject, cell), isNull(token.revokedAt)));
}
