/** What the processes of a local fleet inherit from the environment of whoever started it. */

type Env = Readonly<Record<string, string | undefined>>;

const passed = ["PATH", "HOME", "TMPDIR", "LANG", "LD_LIBRARY_PATH", "NODE_COMPILE_CACHE"];
const ours = /^(CELLFLEET_|CELLCTL_|npm_|PG)|^(DATABASE_URL|PORT|NODE_OPTIONS|INIT_CWD)$/;

/** Of ours only what a program needs to run; settings of other fleets must not reach these processes. */
export const environmentOfChildren = (env: Env): Readonly<Record<string, string>> =>
  filtered(env, (name) => passed.includes(name));

/** Somebody's application gets what it would get in a shell, without what steers us or PostgreSQL. */
export const environmentOfCommands = (env: Env): Readonly<Record<string, string>> =>
  filtered(env, (name) => !ours.test(name));

function filtered(env: Env, wanted: (name: string) => boolean): Readonly<Record<string, string>> {
  return Object.fromEntries(
    Object.entries(env).flatMap(([name, value]) =>
      value !== undefined && wanted(name) ? [[name, value]] : [],
    ),
  );
}
