import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CellError } from "../contract/errors.ts";
import { parseSecretRef, resolveSecret } from "./secret-ref.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "cellfleet-secret-"));
  await writeFile(join(folder, "secret"), "from a file\n");
  await writeFile(join(folder, "empty"), "\n");
});
afterAll(() => rm(folder, { recursive: true }));

describe("a reference", () => {
  test.each([
    ["env:DATABASE_URL", { kind: "env", name: "DATABASE_URL" }],
    ["file:/run/secrets/a b", { kind: "file", path: "/run/secrets/a b" }],
    ["exec:vault read -field=x a", { kind: "exec", command: "vault read -field=x a" }],
  ])("%s is one", (raw, ref) => {
    expect(parseSecretRef(raw)).toEqual(ref);
  });

  test.each(["", "env:", "env:A-B", "env:1A", "postgres://u:p@h/db", "FILE:/x", "vault:x"])(
    "%j is none",
    (raw) => {
      expect(parseSecretRef(raw)).toBeUndefined();
    },
  );
});

describe("the secret", () => {
  test("is read from each kind of place, without the newline at its end", async () => {
    const env = { TOKEN: "from the environment" };
    expect(await resolveSecret("env:TOKEN", env)).toBe("from the environment");
    expect(await resolveSecret(`file:${join(folder, "secret")}`, {})).toBe("from a file");
    expect(await resolveSecret("exec:printf 'from a command\\n'", {})).toBe("from a command");
  });

  test.each([
    ["a value instead of a reference", "postgres://user:hunter2@host/db"],
    ["a variable that is not set", "env:NOWHERE"],
    ["a file that is not there", "file:/nowhere/at/all"],
    ["a command that fails", "exec:exit 3"],
    ["a command that says nothing", "exec:true"],
  ])("%s is refused without telling the value", async (_what, raw) => {
    const refusal: unknown = await resolveSecret(raw, {}).catch((error: unknown) => error);
    expect(refusal).toBeInstanceOf(CellError);
    expect(refusal).toMatchObject({ code: "CONFIG_INVALID" });
    expect(String(refusal)).not.toContain("hunter2");
  });

  test("an empty file is no secret", async () => {
    await expect(resolveSecret(`file:${join(folder, "empty")}`, {})).rejects.toThrow("is empty");
  });
});
