/** Flags of a script of this repository: `--help` prints its usage, and a flag that it does not know is no fault of the script. */
export function flagsOrUsage<Flags>(
  usage: string,
  args: readonly string[],
  read: () => Flags,
): Flags {
  if (args.includes("--help") || args.includes("-h")) {
    process.stdout.write(`${usage}\n`);
    process.exit(0);
  }
  try {
    return read();
  } catch (error) {
    if (!isAboutFlags(error)) throw error;
    process.stderr.write(`${error.message}\n${usage}\n`);
    process.exit(64);
  }
}

const isAboutFlags = (error: unknown): error is Error =>
  error instanceof Error &&
  "code" in error &&
  typeof error.code === "string" &&
  error.code.startsWith("ERR_PARSE_ARGS");
