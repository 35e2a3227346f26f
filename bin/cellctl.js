#!/usr/bin/env node
/**
 * Starts `cellctl` on a Node that can run it: this one, if it is new enough, else the Node that
 * npm installed beside this package (devDependency `node`). Plain JavaScript that any Node since 12
 * can read, because its only job is to be started by the wrong one.
 *
 * The exit code and the signals of the started process are those of this one.
 */
import { spawn, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { constants } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const nodeMin = [24, 18, 0];
const exitConfig = 78;
const packageFolder = dirname(dirname(fileURLToPath(import.meta.url)));

/** In a checkout the sources run as they are; a published package carries them built. */
function entryFile() {
  const source = join(packageFolder, "cli", "main.ts");
  return existsSync(source) ? source : join(packageFolder, "dist", "cli", "main.js");
}

function isNewEnough(version) {
  const parts = version.replace(/^v/, "").split(".").map(Number);
  for (let index = 0; index < nodeMin.length; index += 1) {
    if (parts[index] !== nodeMin[index]) return parts[index] > nodeMin[index];
  }
  return true;
}

/** The Node of the npm package `node`, wherever npm has put it; undefined when it cannot be used. */
function installedNode() {
  try {
    const manifest = createRequire(import.meta.url).resolve("node/package.json");
    const binary = join(
      dirname(manifest),
      "bin",
      process.platform === "win32" ? "node.exe" : "node",
    );
    const answer = spawnSync(binary, ["--version"], { encoding: "utf8" });
    return answer.status === 0 && isNewEnough(answer.stdout.trim()) ? binary : undefined;
  } catch {
    return undefined; // Not installed: the caller says what to do.
  }
}

function runIn(binary) {
  const child = spawn(binary, [entryFile(), ...process.argv.slice(2)], { stdio: "inherit" });
  // On a terminal Ctrl-C reaches both processes and the child hears it twice; it counts one of
  // two that come close together (cli/main.ts).
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"]) {
    process.on(signal, () => child.kill(signal));
  }
  child.on("error", (error) => {
    process.stderr.write(`Error [CONFIG_INVALID]: cannot start ${binary}: ${error.message}\n`);
    process.exit(exitConfig);
  });
  child.on("exit", (code, signal) => {
    process.exit(signal === null ? code : 128 + (constants.signals[signal] || 0));
  });
}

function refuse() {
  process.stderr.write(
    `Error [CONFIG_INVALID]: cellctl needs Node ${nodeMin.join(".")} or newer; this is ${process.version}, and no newer one is installed beside cellctl.\n` +
      "  Nothing was changed.\n" +
      "  Next: npm ci                (in a checkout: brings the right Node along)\n" +
      "        node --version        (or put a newer Node on the PATH)\n",
  );
  process.exitCode = exitConfig;
}

if (isNewEnough(process.version)) {
  await import(pathToFileURL(entryFile()).href);
} else {
  const binary = installedNode();
  if (binary === undefined) refuse();
  else runIn(binary);
}
