/**
 * Silences two warnings of Node that are about our packages and not about the user's doing, each by
 * its exact identity; every other warning is shown.
 */

/** `util._extend` is deprecated; http-proxy 1.18 calls it. */
const deprecatedByHttpProxy = "DEP0060";

export function quietWarnings(): void {
  const emit = process.emitWarning.bind(process) as (...parts: unknown[]) => void;
  process.emitWarning = (...parts: unknown[]): void => {
    if (!isKnown(parts)) emit(...parts);
  };
}

/** Type stripping is announced as experimental by some Nodes that we run on. */
function isKnown([warning, options, code]: readonly unknown[]): boolean {
  const type = typeof options === "string" ? options : field(options, "type");
  const id = typeof code === "string" ? code : field(options, "code");
  if (id === deprecatedByHttpProxy) return true;
  return type === "ExperimentalWarning" && /type stripping/i.test(String(warning));
}

function field(value: unknown, name: "type" | "code"): unknown {
  return typeof value === "object" && value !== null ? Reflect.get(value, name) : undefined;
}
