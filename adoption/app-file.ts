/**
 * Reads a `cellfleet.yaml`. The file is somebody else's: it is only parsed, within limits, and every
 * fault is told with the line it stands on.
 */
import { readFile, stat } from "node:fs/promises";
import { basename, dirname, resolve } from "node:path";
import { isNode, LineCounter, parseDocument } from "yaml";
import type { z } from "zod";
import { type AppFile, appFileSchema } from "../contract/app-file.ts";
import { CellError } from "../contract/errors.ts";

export const appFileName = "cellfleet.yaml";

export type ReadAppFile = {
  readonly file: string;
  /** What relative paths count from. */
  readonly folder: string;
  readonly app: AppFile;
};

const bytesMax = 256 * 1024;
/** Aliases may be used; a file that grows without end by them may not. */
const aliasesMax = 100;
const faultsMax = 50;

/** `path`: the file, or the folder that has a `cellfleet.yaml`. Throws CONFIG_INVALID or FILE_UNREADABLE. */
export async function readAppFile(path: string): Promise<ReadAppFile> {
  const file = await whichFile(resolve(path));
  const text = await readText(file);
  return { file, folder: dirname(file), app: parseAppFile(text, basename(file)) };
}

/** `name` stands before each fault, as editors and compilers write it: `cellfleet.yaml:7:5`. */
export function parseAppFile(text: string, name = appFileName): AppFile {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const at = (offset: number): string => {
    const { line, col } = lines.linePos(offset);
    return `${name}:${line}:${col}`;
  };
  const broken = [...document.errors, ...document.warnings];
  if (broken.length > 0) {
    throw invalid(
      name,
      broken.map((one) => `${at(one.pos[0])}: ${one.message}`),
    );
  }
  const parsed = appFileSchema.safeParse(contentOf(document, name));
  if (parsed.success) return parsed.data;
  const faults = parsed.error.issues.flatMap(explain).map(({ path, message }) => {
    const where = path.map(String).join(".");
    const offset = offsetOf(document, path);
    const place = offset === undefined ? name : at(offset);
    return `${place}: ${where === "" ? "" : `${where}: `}${message}`;
  });
  throw invalid(name, faults);
}

type Fault = { readonly path: readonly PropertyKey[]; readonly message: string };

/** Of a union the branch that came furthest is what was meant; its own faults say more than "no match". */
function explain(issue: z.core.$ZodIssue): Fault[] {
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map((key) => ({ path: [...issue.path, key], message: "is not known here" }));
  }
  if (issue.code === "invalid_union") {
    const branches = issue.errors.toSorted(
      (a, b) => a.length - b.length || strangers(a) - strangers(b),
    );
    const [best = []] = branches;
    if (best.length > 0) {
      return best
        .flatMap(explain)
        .map(({ path, message }) => ({ path: [...issue.path, ...path], message }));
    }
  }
  return [{ path: issue.path, message: issue.message }];
}

const strangers = (issues: readonly z.core.$ZodIssue[]): number =>
  issues.filter(({ code }) => code === "unrecognized_keys").length;

/** Of the thing at `path`, or of the nearest thing around it that is there. */
function offsetOf(
  document: ReturnType<typeof parseDocument>,
  path: readonly PropertyKey[],
): number | undefined {
  for (let length = path.length; length >= 0; length -= 1) {
    const found: unknown =
      length === 0 ? document.contents : document.getIn(path.slice(0, length), true);
    if (isNode(found) && found.range !== undefined && found.range !== null) return found.range[0];
  }
  return undefined;
}

function contentOf(document: ReturnType<typeof parseDocument>, name: string): unknown {
  try {
    return document.toJS({ maxAliasCount: aliasesMax });
  } catch (error) {
    throw invalid(name, [`${name}: ${error instanceof Error ? error.message : String(error)}`]);
  }
}

async function whichFile(path: string): Promise<string> {
  const found = await stat(path).catch(() => undefined);
  return found?.isDirectory() === true ? resolve(path, appFileName) : path;
}

async function readText(file: string): Promise<string> {
  try {
    const { size } = await stat(file);
    if (size > bytesMax) throw new Error(`it has ${size} bytes, more than ${bytesMax}`);
    return await readFile(file, "utf8");
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new CellError("CONFIG_INVALID", `cannot read ${file}: ${why}`, {
      nextSteps: ["cellctl init   # writes one, by asking"],
      cause,
    });
  }
}

function invalid(name: string, faults: readonly string[]): CellError {
  const shown = faults.slice(0, faultsMax);
  return new CellError(
    "CONFIG_INVALID",
    `${name} is not valid; nothing was started.\n${shown.map((one) => `  ${one}`).join("\n")}`,
    { details: { faults: shown }, nextSteps: [`mend ${name}`] },
  );
}
