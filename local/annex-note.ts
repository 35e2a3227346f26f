/**
 * What is on disk of an annex: whose it is, its ports, whether it serves.
 *
 *   cells/HOST/annexes/ID/annex.json
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { cellIdSchema } from "../contract/ids.ts";
import { standbyProviders } from "../contract/standby-api.ts";
import { portsSchema } from "./cell-parts.ts";
import { writeJson } from "./data-folder.ts";

const annexOfSchema = z.object({
  origin: cellIdSchema,
  host: cellIdSchema,
  provider: z.enum(standbyProviders),
});
export type AnnexOf = z.infer<typeof annexOfSchema>;

const noteSchema = z.object({
  of: annexOfSchema,
  ports: portsSchema,
  serving: z.boolean(),
  /** Being destroyed: its databases are still to be dropped. */
  leaving: z.boolean(),
  /** Of a server of its own: it is whole. */
  made: z.boolean().default(false),
  /** It was promoted, and is the annex's: nothing of it waits in its host's databases any more. */
  settled: z.boolean().default(false),
  /** Which schema its databases had last. */
  schema: z.string().optional(),
});
export type AnnexNote = z.output<typeof noteSchema>;

const noteFile = (home: string): string => join(home, "annex.json");

export const writeNote = (
  one: { readonly home: string } & {
    readonly [name in keyof AnnexNote]: AnnexNote[name] | undefined;
  },
): Promise<void> => {
  const { home, of, ports, serving, leaving, made, settled, schema } = one;
  return writeJson(noteFile(home), { of, ports, serving, leaving, made, settled, schema });
};

/** Undefined: not begun, or destroyed; or it cannot be read, which is told. */
export async function readNote(
  home: string,
  onUnreadable: (text: string) => void,
): Promise<AnnexNote | undefined> {
  const text = await readFile(noteFile(home), "utf8").catch(() => undefined);
  if (text === undefined) return undefined;
  try {
    return noteSchema.parse(JSON.parse(text));
  } catch (error) {
    // One note must not cost all cells their start.
    onUnreadable(`${noteFile(home)} cannot be read: ${String(error)}`);
    return undefined;
  }
}
