/**
 * PostgreSQL refuses to run as root. As root we use an existing unprivileged user, `postgres`, else
 * `nobody`; we never create one. As an ordinary user nothing changes.
 */
import { readFile } from "node:fs/promises";
import { CellError } from "../../contract/errors.ts";
import type { RunAs } from "./command.ts";

const candidates = ["postgres", "nobody"] as const;

export async function chooseUnprivilegedUser(): Promise<RunAs | undefined> {
  if (process.getuid?.() !== 0) return undefined;
  const passwd = await readFile("/etc/passwd", "utf8").catch(() => "");
  const user = findUser(passwd);
  if (user !== undefined) return user;
  throw new CellError(
    "CONFIG_INVALID",
    `PostgreSQL does not run as root, and neither of the users ${candidates.join(", ")} exists here.`,
    { nextSteps: ["run the same command as an ordinary user"] },
  );
}

/** Pure: the first candidate in the text of /etc/passwd that is not root in disguise. */
export function findUser(passwd: string): RunAs | undefined {
  const users = new Map(
    passwd.split("\n").flatMap((line) => {
      const [name, , uid, gid] = line.split(":");
      if (name === undefined || uid === undefined || gid === undefined) return [];
      // macOS writes -2 for nobody: the same number, unsigned.
      return [[name, { name, uid: Number(uid) >>> 0, gid: Number(gid) >>> 0 }] as const];
    }),
  );
  return candidates.flatMap((name) => users.get(name) ?? []).find((user) => user.uid !== 0);
}
