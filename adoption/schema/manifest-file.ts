/** Reads a manifest from a file. Throws CONFIG_INVALID, naming the file and every fault. */
import { readFile } from "node:fs/promises";
import { type Manifest, parseManifest } from "../../cell/store/manifest.ts";
import { CellError } from "../../contract/errors.ts";

const bytesMax = 4 * 1024 * 1024;

export async function readManifest(path: string): Promise<Manifest> {
  const text = await readFile(path, "utf8").catch((error: unknown) => {
    throw new CellError("CONFIG_INVALID", `The manifest ${path} cannot be read`, {
      cause: error,
      nextSteps: ["cellctl schema init --database-url REF proposes one"],
    });
  });
  if (text.length > bytesMax) throw new CellError("CONFIG_INVALID", `${path} is too large`);
  return parseManifest(text);
}
