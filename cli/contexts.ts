/**
 * Contexts: named fleets in `$XDG_CONFIG_HOME/cellctl/config.yaml` (or `CELLCTL_CONFIG`).
 *
 * A token never stands in this file nor on a command line: a context names the file that holds it.
 * The file is replaced whole, so that a crash leaves the old or the new one.
 */
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import { CellError } from "../contract/errors.ts";
import { CliError } from "./failures.ts";
import type { Io } from "./io.ts";

const contextSchema = z.strictObject({
  addr: z.url({ protocol: /^https?$/ }),
  tokenFile: z.string().min(1).optional(),
});
const configSchema = z.strictObject({
  current: z.string().optional(),
  contexts: z.record(z.string().regex(/^[A-Za-z0-9][\w.-]{0,63}$/), contextSchema).default({}),
});
export type Context = z.infer<typeof contextSchema>;
export type ContextFile = z.infer<typeof configSchema>;

export function contextFilePath(io: Pick<Io, "env" | "home">): string {
  const named = io.env["CELLCTL_CONFIG"];
  if (named !== undefined && named !== "") return named;
  const folder = io.env["XDG_CONFIG_HOME"];
  // The XDG specification: a value that is empty or relative is ignored.
  const home = folder?.startsWith("/") === true ? folder : join(io.home, ".config");
  return join(home, "cellctl", "config.yaml");
}

export async function readContexts(io: Pick<Io, "env" | "home">): Promise<ContextFile> {
  const path = contextFilePath(io);
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if (isMissing(error)) return { contexts: {} };
    throw new CellError("CONFIG_INVALID", `cannot read ${path}: ${String(error)}`);
  }
  const { parse } = await import("yaml");
  const parsed = configSchema.safeParse(parseOr(parse, text, path) ?? {});
  if (parsed.success) return parsed.data;
  throw new CellError("CONFIG_INVALID", `${path} is not valid:\n${z.prettifyError(parsed.error)}`);
}

export async function writeContexts(
  io: Pick<Io, "env" | "home" | "random">,
  contexts: ContextFile,
): Promise<void> {
  const path = contextFilePath(io);
  const { stringify } = await import("yaml");
  const checked = configSchema.safeParse(contexts);
  if (!checked.success) {
    throw new CliError("USAGE", `not a valid context:\n${z.prettifyError(checked.error)}`);
  }
  await mkdir(dirname(path), { recursive: true });
  const fresh = `${path}.${io.random.hex(4)}`;
  await writeFile(fresh, stringify(checked.data), { mode: 0o600 });
  await rename(fresh, path);
}

/** The context of this name, or an error that lists the names there are. */
export function pickContext(file: ContextFile, name: string): Context {
  const context = Object.hasOwn(file.contexts, name) ? file.contexts[name] : undefined;
  if (context !== undefined) return context;
  const names = Object.keys(file.contexts);
  throw new CliError("CONTEXT_UNKNOWN", `there is no context "${name}"`, {
    details: { known: names },
    nextSteps: [
      ...(names[0] === undefined ? [] : [`cellctl context use ${names[0]}`]),
      `cellctl context set ${name} --addr URL --token-file FILE`,
    ],
  });
}

const isMissing = (error: unknown): boolean =>
  error instanceof Error && "code" in error && error.code === "ENOENT";

function parseOr(parse: (text: string) => unknown, text: string, path: string): unknown {
  try {
    return parse(text);
  } catch (error) {
    throw new CellError("CONFIG_INVALID", `${path} is not YAML: ${String(error)}`);
  }
}
