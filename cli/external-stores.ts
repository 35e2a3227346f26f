/**
 * Stores of a cell that PostgreSQL does not hold, as options say them: `--hook`, `--hook-command`,
 * `--hook-timeout`, `--ignore-store`, `--forget-store`. Each says all there is to say of its store.
 */
import type { Command } from "commander";
import { usage } from "./failures.ts";
import { collect, type Options, text, texts } from "./grammar.ts";
import { parseDuration } from "./render/units.ts";

type Hook = { readonly timeoutMs?: number } & (
  | { readonly url: string }
  | { readonly command: string }
);
type ExternalSaid =
  | { readonly kind: "external"; readonly hook: Hook }
  | { readonly kind: "external"; readonly ignore: true }
  | null;

export const withExternalStores = (command: Command): Command =>
  command
    .option("--hook <name=url>", "its store NAME (Redis, files) moves by a POST to URL", collect)
    .option("--hook-command <name=command>", "the same by a command of the control plane", collect)
    .option("--hook-timeout <time>", "for the hooks named here, tries included (default: 10s)")
    .option("--ignore-store <name>", "data of its external store NAME stays behind", collect)
    .option("--forget-store <name>", "its external store NAME is there no more", collect);

/** By name; null is forgotten. */
export function externalStoresOf(options: Options): Readonly<Record<string, ExternalSaid>> {
  const stores = new Map<string, ExternalSaid>();
  const say = (name: string, said: ExternalSaid) => {
    if (stores.has(name)) throw usage(`the store ${name} is named twice: say one thing of it`);
    stores.set(name, said);
  };
  const timeout = timeoutOf(options);
  for (const raw of texts(options, "hook")) {
    const [name, url] = pair("--hook", raw, "URL");
    if (!/^https?:\/\/./.test(url) || !URL.canParse(url)) {
      throw usage(
        `--hook ${name}: must be an http or https URL, as in ${name}=http://hooks:8080/${name}`,
      );
    }
    say(name, { kind: "external", hook: { url, ...timeout } });
  }
  for (const raw of texts(options, "hookCommand")) {
    const [name, command] = pair("--hook-command", raw, "COMMAND");
    say(name, { kind: "external", hook: { command, ...timeout } });
  }
  if (timeout.timeoutMs !== undefined && stores.size === 0) {
    throw usage("--hook-timeout goes with --hook or --hook-command: each says all of its store");
  }
  for (const name of texts(options, "ignoreStore")) say(name, { kind: "external", ignore: true });
  for (const name of texts(options, "forgetStore")) say(name, null);
  return Object.fromEntries(stores);
}

function timeoutOf(options: Options): { readonly timeoutMs?: number } {
  const raw = text(options, "hookTimeout");
  if (raw === undefined) return {};
  const ms = parseDuration(raw);
  if (ms !== undefined && ms >= 10 && ms <= 600_000) return { timeoutMs: Math.round(ms) };
  throw usage(`--hook-timeout "${raw}": must be a time of at most 10m, such as 10s`);
}

function pair(option: string, raw: string, what: string): [string, string] {
  const at = raw.indexOf("=");
  // What is no pair may be a secret: it is not repeated.
  if (at < 1 || at === raw.length - 1) throw usage(`${option}: must be NAME=${what}`);
  return [raw.slice(0, at), raw.slice(at + 1)];
}
