/** A data folder that cannot be used is the operator's to mend. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { systemRandom } from "../runtime/random.ts";
import { openDataFolder } from "./data-folder.ts";

test("a file in place of the data folder is named, not called a fault", async () => {
  const root = await mkdtemp(join(tmpdir(), "cellfleet-folder-"));
  try {
    const file = join(root, "file");
    await writeFile(file, "");
    await expect(openDataFolder(file, undefined, systemRandom)).rejects.toMatchObject({
      code: "CONFIG_INVALID",
      message: `The data folder ${file} cannot be used: it is a file.`,
    });
    await expect(
      openDataFolder(join(file, "below"), undefined, systemRandom),
    ).rejects.toMatchObject({ code: "CONFIG_INVALID" });
  } finally {
    await rm(root, { recursive: true });
  }
});
