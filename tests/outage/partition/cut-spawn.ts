/**
 * Preloaded into the supervisor of a local fleet (`node --import …/cut-spawn.ts?switch=PORT`): whatever part of
 * ours it starts makes its connections through the switch of `switch.ts`, by its own name. Processes, flags
 * and files stay as they are in every other fleet.
 */
import childProcess from "node:child_process";
import { syncBuiltinESMExports } from "node:module";

const switchPort = new URL(import.meta.url).searchParams.get("switch") ?? "";
const plainSpawn = childProcess.spawn;

/** After the name of a part, the flag that says which one it is. */
const parts: Readonly<Record<string, string>> = { router: "--id", agent: "--cell" };

function preloadFor(args: readonly string[]): readonly string[] {
  const part = args.find((one) => one in parts || one === "control-plane" || one === "dev");
  if (part === undefined || !args[0]?.includes("cli")) return [];
  // A launcher that starts a newer Node.
  if (part === "dev") return ["--import", import.meta.url];
  const flag = parts[part];
  const id = flag === undefined ? part : (args[args.indexOf(flag) + 1] ?? part);
  const name = part === "agent" ? `agent:${id}` : id;
  const preload = new URL("cut-sockets.ts", import.meta.url);
  preload.search = String(new URLSearchParams({ switch: switchPort, name }));
  return ["--import", preload.href];
}

// biome-ignore lint/suspicious/noExplicitAny: stands in for a function of many forms.
childProcess.spawn = ((file: string, args: any, options: any) =>
  Array.isArray(args)
    ? plainSpawn(file, [...preloadFor(args), ...args], options)
    : plainSpawn(file, args, options)) as typeof plainSpawn;
syncBuiltinESMExports();
