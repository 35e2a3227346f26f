/**
 * How a command is told which database is meant: `env:NAME`, `file:PATH`, `exec:COMMAND`. A URL as it
 * is works too, for a look; if it holds a password, the person is told where that can be read.
 */
import type { Session } from "./session.ts";

export async function noteExposedPassword(session: Session, reference: string): Promise<void> {
  const { exposesPassword } = await import("./adoption.ts");
  if (!(await exposesPassword(reference))) return;
  await session.note(
    "Warning: the list of processes shows this password to everybody here. Better: --database-url env:DATABASE_URL",
  );
}
