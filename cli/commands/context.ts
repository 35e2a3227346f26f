/** `cellctl context …`: fleets that this tool knows by name. Tokens stay in files of their own. */
import { resolve } from "node:path";
import type { z } from "zod";
import { contextFilePath, pickContext, readContexts, writeContexts } from "../contexts.ts";
import { CliError } from "../failures.ts";
import { findFleet } from "../fleet.ts";
import { type Options, type Register, text } from "../grammar.ts";
import type { View } from "../render/output.ts";
import type { Session } from "../session.ts";
import type { contextItemSchema, foundSchema } from "../shapes.ts";

type Item = z.infer<typeof contextItemSchema>;

const itemView: View<Item> = {
  id: ({ id }) => id,
  columns: [
    { head: "CURRENT", cell: ({ current }) => (current ? "*" : "") },
    { head: "CONTEXT", cell: ({ id }) => id },
    { head: "ADDRESS", cell: ({ addr }) => addr },
    { head: "TOKEN FILE", cell: ({ tokenFile }) => tokenFile ?? "" },
  ],
};
const foundView: View<z.infer<typeof foundSchema>> = {
  id: ({ addr }) => addr,
  columns: [{ head: "ADDRESS", cell: ({ addr }) => addr }],
  details: ({ addr, from }) => [
    ["address", addr],
    ["from", from],
  ],
};

export const register: Register = (noun, bind) => {
  bind(noun.command("ls").description("list contexts"), async (session) => {
    const { contexts, current } = await readContexts(session.io);
    const items = Object.entries(contexts).map(
      ([id, context]): Item => ({
        id,
        addr: context.addr,
        tokenFile: context.tokenFile ?? null,
        current: id === current,
      }),
    );
    await session.out.list(onePage(items), itemView);
    return 0;
  });
  bind(
    noun.command("current").description("the fleet that a command would speak to"),
    async (session) => {
      const { origin, from } = await findFleet(session.io, session.fleetFlags);
      await session.out.one({ addr: origin, from }, foundView);
      return 0;
    },
  );
  bind(
    noun.command("use <context>").description("make it the current one"),
    async (session, [name = ""]) => {
      const file = await readContexts(session.io);
      pickContext(file, name);
      await writeContexts(session.io, { ...file, current: name });
      await session.progress.done("ok", `${name} is the current context`);
      return 0;
    },
  );
  bind(
    noun
      .command("set <context>")
      .description("remember a fleet; becomes the current one if there is none")
      .requiredOption("--addr <url>", "where its control plane listens")
      .option("--token-file <file>", "the file that holds the token")
      .option(
        "--token-stdin",
        "read the token from standard input, keep it in a file of mode 0600",
      ),
    set,
  );
  bind(noun.command("rm <context>").description("forget it"), async (session, [name = ""]) => {
    const file = await readContexts(session.io);
    pickContext(file, name);
    const { [name]: _gone, ...contexts } = file.contexts;
    const keepsCurrent = file.current !== undefined && file.current !== name;
    await writeContexts(session.io, {
      contexts,
      ...(keepsCurrent ? { current: file.current } : {}),
    });
    await session.progress.done("ok", `${name} is forgotten`);
    return 0;
  });
};

async function set(session: Session, [name = ""]: readonly string[], options: Options) {
  const { io } = session;
  const file = await readContexts(io);
  const named = text(options, "tokenFile");
  const given = named === undefined ? undefined : resolve(io.cwd, named);
  if (given !== undefined && options["tokenStdin"] === true) {
    throw new CliError("USAGE", "give --token-file or --token-stdin, not both");
  }
  const tokenFile = options["tokenStdin"] === true ? await keepToken(session, name) : given;
  await writeContexts(io, {
    ...file,
    current: file.current ?? name,
    contexts: {
      ...file.contexts,
      [name]: {
        addr: text(options, "addr") ?? "",
        ...(tokenFile === undefined ? {} : { tokenFile }),
      },
    },
  });
  await session.progress.done("ok", `${name} is written to ${contextFilePath(io)}`);
  return 0;
}

async function keepToken(session: Session, name: string): Promise<string> {
  const { text: readAll } = await import("node:stream/consumers");
  const { mkdir, writeFile } = await import("node:fs/promises");
  const { dirname, join } = await import("node:path");
  const token = (await readAll(session.io.stdin)).trim();
  if (token === "") throw new CliError("USAGE", "standard input holds no token");
  if (!/^[\w.-]+$/.test(name)) throw new CliError("USAGE", `"${name}" is not a name for a context`);
  const path = join(dirname(contextFilePath(session.io)), "tokens", name);
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  await writeFile(path, `${token}\n`, { mode: 0o600 });
  return path;
}

async function* onePage<T>(items: readonly T[]) {
  yield { items, next: null };
}
