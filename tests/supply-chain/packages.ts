/**
 * Which packages this repository stands on: the lock file says which, the installed folders say what
 * they really are. One list for licences and for the bill of materials.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";

const lockSchema = z.object({
  packages: z.record(
    z.string(),
    z.object({
      name: z.string().optional(),
      version: z.string().optional(),
      license: z.string().optional(),
      dev: z.boolean().optional(),
      optional: z.boolean().optional(),
      devOptional: z.boolean().optional(),
      link: z.boolean().optional(),
    }),
  ),
});

const manifestSchema = z.object({
  name: z.string().optional(),
  version: z.string().optional(),
  license: z.union([z.string(), z.object({ type: z.string() })]).optional(),
  licenses: z.array(z.object({ type: z.string() })).optional(),
});

export type LockedPackage = {
  readonly name: string;
  readonly version: string;
  /** An SPDX expression; of the installed package if it is installed, else of the lock. */
  readonly licence: string | undefined;
  /** Only for those who work on Cellfleet: nobody gets it with the package. */
  readonly dev: boolean;
  /** Packages for other platforms are locked and not installed. */
  readonly installed: boolean;
};

export function readPackages(root: string): LockedPackage[] {
  const lock = lockSchema.parse(JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")));
  return Object.entries(lock.packages).flatMap(([path, entry]) => {
    if (path === "" || entry.link === true) return [];
    const manifest = readManifest(join(root, path, "package.json"));
    return [
      {
        name: entry.name ?? path.slice(path.lastIndexOf("node_modules/") + "node_modules/".length),
        version: manifest?.version ?? entry.version ?? "",
        licence: manifest === undefined ? entry.license : licenceOf(manifest),
        dev: entry.dev === true || entry.devOptional === true,
        installed: manifest !== undefined,
      },
    ];
  });
}

type Manifest = z.infer<typeof manifestSchema>;

function readManifest(path: string): Manifest | undefined {
  if (!existsSync(path)) return undefined;
  return manifestSchema.parse(JSON.parse(readFileSync(path, "utf8")));
}

/** Old packages write an object, or a list of which one may be chosen. */
function licenceOf({ license, licenses }: Manifest): string | undefined {
  if (typeof license === "string") return license;
  if (license !== undefined) return license.type;
  return licenses === undefined || licenses.length === 0
    ? undefined
    : `(${licenses.map(({ type }) => type).join(" OR ")})`;
}

export function readProduct(root: string): { readonly name: string; readonly version: string } {
  const { name = "", version = "" } = readManifest(join(root, "package.json")) ?? {};
  return { name, version };
}
