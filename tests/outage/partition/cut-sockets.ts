/**
 * Preloaded into one process of a fleet (`?switch=PORT&name=NAME`): every TCP connection that it opens goes to
 * the switch, and says first who opens it and where it wants to go. Nothing else of the process is changed.
 */
import net from "node:net";

const asked = new URL(import.meta.url).searchParams;
const switchPort = Number(asked.get("switch"));
const name = asked.get("name") ?? "";

// biome-ignore lint/suspicious/noExplicitAny: takes every form that net.Socket.connect takes.
type Args = any[];
const plainConnect = net.Socket.prototype.connect;

/** The port it was for; undefined: no TCP connection. */
function redirect(args: Args): number | undefined {
  const [first, second] = args;
  if (typeof first === "number" || (typeof first === "string" && /^\d+$/.test(first))) {
    args[0] = switchPort;
    if (typeof second === "string") args[1] = "127.0.0.1";
    return Number(first);
  }
  const holder: Args = Array.isArray(first) ? first : args;
  const options = holder[0];
  if (typeof options !== "object" || options === null || options.port === undefined) return;
  holder[0] = { ...options, port: switchPort, host: "127.0.0.1" };
  return Number(options.port);
}

net.Socket.prototype.connect = function connect(this: net.Socket, ...args: Args) {
  const port = redirect(args);
  // Before whatever else listens: the first bytes are ours.
  if (port !== undefined)
    this.prependOnceListener("connect", () => this.write(`${name} ${port}\n`));
  // biome-ignore lint/suspicious/noExplicitAny: as above.
  return (plainConnect as any).apply(this, args);
} as typeof plainConnect;
