/**
 * References to secrets: `env:NAME`, `file:PATH`, `exec:COMMAND`. Only the reference is written down
 * anywhere; the value is read at the edge, when it is needed, and never logged.
 */
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { promisify } from "node:util";
import { CellError } from "../contract/errors.ts";

export type SecretRef =
  | { readonly kind: "env"; readonly name: string }
  | { readonly kind: "file"; readonly path: string }
  | { readonly kind: "exec"; readonly command: string };

export const secretRefRule = "env:NAME, file:PATH or exec:COMMAND";

const execTimeoutMs = 10_000;
const secretBytesMax = 64 * 1024;

export function parseSecretRef(raw: string): SecretRef | undefined {
  const [, kind, rest = ""] = /^(env|file|exec):(.+)$/s.exec(raw) ?? [];
  if (kind === "env") return /^[A-Za-z_]\w*$/.test(rest) ? { kind, name: rest } : undefined;
  if (kind === "file") return { kind, path: rest };
  return kind === "exec" ? { kind, command: rest } : undefined;
}

/**
 * The secret itself, without the newline that editors put at the end.
 * Throws CONFIG_INVALID, naming the reference and never the value.
 */
export async function resolveSecret(
  raw: string,
  env: Readonly<Record<string, string | undefined>>,
): Promise<string> {
  const ref = parseSecretRef(raw);
  if (ref === undefined) {
    throw new CellError("CONFIG_INVALID", `A secret is given as ${secretRefRule}.`, {
      nextSteps: ["Put the secret into a file and refer to it as file:PATH."],
    });
  }
  const value = (await readRef(ref, raw, env)).replace(/\r?\n$/, "");
  if (value === "") throw new CellError("CONFIG_INVALID", `The secret at ${raw} is empty.`);
  return value;
}

async function readRef(
  ref: SecretRef,
  raw: string,
  env: Readonly<Record<string, string | undefined>>,
): Promise<string> {
  try {
    if (ref.kind === "file") return await readFile(ref.path, "utf8");
    if (ref.kind === "exec") {
      const { stdout } = await promisify(execFile)("/bin/sh", ["-c", ref.command], {
        timeout: execTimeoutMs,
        maxBuffer: secretBytesMax,
      });
      return stdout;
    }
  } catch (error) {
    throw new CellError("CONFIG_INVALID", `The secret at ${raw} cannot be read.`, {
      cause: error,
      details: error instanceof Error && "code" in error ? { code: error.code } : {},
    });
  }
  const value = env[ref.name];
  if (value === undefined) {
    throw new CellError("CONFIG_INVALID", `The secret at ${raw} is not set.`);
  }
  return value;
}
