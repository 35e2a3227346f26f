/** Who is whose child, by `/proc`. */
import { readdir, readFile } from "node:fs/promises";

export async function childrenOf(parent: number): Promise<readonly number[]> {
  const pids = (await readdir("/proc")).map(Number).filter(Number.isInteger);
  const found = await Promise.all(
    pids.map(async (pid) => {
      const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
      // After the name in parentheses: state, then the parent.
      const [, of] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      return Number(of) === parent ? [pid] : [];
    }),
  );
  return found.flat();
}
