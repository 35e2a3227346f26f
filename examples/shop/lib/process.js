/** What every process of the shop reads from its environment, and how a worker ends. */

export function settings() {
  const { DATABASE_URL, PORT = "3000", CELL_ID } = process.env;
  if (!DATABASE_URL) {
    process.stderr.write("DATABASE_URL must be set\n");
    process.exit(78);
  }
  // Without cells there is one place, and it has a name too.
  return { databaseUrl: DATABASE_URL, port: Number(PORT), place: CELL_ID ?? "the only one" };
}

/** Calls `turn` until the process is told to end; a turn says how many milliseconds to wait. */
export async function repeat(turn, close) {
  let stopping = false;
  let wake = () => {};
  const stop = () => {
    stopping = true;
    wake();
  };
  process.once("SIGTERM", stop);
  process.once("SIGINT", stop);
  while (!stopping) {
    const waitMs = await turn();
    if (stopping || waitMs <= 0) continue;
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, waitMs);
      wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
  await close();
}
