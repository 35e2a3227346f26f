/** `cellctl token …`: who may ask the control plane for what. */

import type { z } from "zod";
import { createdTokenSchema, tokenSchema } from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import { type Api, apiPath } from "../api.ts";
import { usage } from "../failures.ts";
import { destructive, type Options, type Register, text } from "../grammar.ts";
import { mutate, sendChange } from "../mutate.ts";
import type { View } from "../render/output.ts";
import { parseDuration } from "../render/units.ts";
import { tokenView } from "../render/views.ts";

const createdView: View<z.infer<typeof createdTokenSchema>> = {
  id: ({ token }) => token.id,
  columns: [{ head: "SECRET", cell: ({ secret }) => secret }],
  details: ({ token, secret }) => [
    ["token", token.id],
    ["name", token.name],
    ["role", token.role],
    ["subject", token.subject ?? ""],
    ["expires", token.expiresAt ?? "never"],
    ["secret", secret],
  ],
};

export const register: Register = (noun, bind) => {
  bind(noun.command("ls").description("list tokens; never their secrets"), async (session) => {
    const api = await session.api();
    await session.out.list(api.pages("/v1/tokens", tokenSchema), tokenView);
    return 0;
  });
  bind(
    noun
      .command("create <name>")
      .description("make a token; its secret is shown once, here")
      .requiredOption("--role <role>", "viewer, operator, admin; for machines: router, agent")
      .option("--subject <id>", "machine tokens: the one cell or router it speaks for")
      .option("--ttl <time>", "it expires after this, such as 12h or 90d (default: never)")
      .option("--reason <text>", "why; goes to the audit log")
      .option("--idempotency-key <key>", "repeat a request without doing it twice"),
    async (session, [name = ""], options) => {
      const body = { name, ...wanted(options) };
      const created = await sendChange(
        session,
        options,
        { path: "/v1/tokens", body },
        createdTokenSchema,
      );
      await session.out.one(created, createdView);
      await session.note("Keep the secret now: only its hash is kept, it cannot be shown again.");
      return 0;
    },
  );
  bind(
    destructive(
      noun
        .command("revoke <token-id>")
        .description("make a token worthless, at once; a name that one token bears will do"),
    ),
    async (session, [word = ""], options) => {
      const { id, name } = await findToken(await session.api(), word);
      const effect = `Whoever uses token ${id} (${name}) will be refused from now on.`;
      return mutate(session, options, {
        method: "DELETE",
        path: apiPath`/v1/tokens/${id}`,
        danger: { name: word, effect },
      });
    },
  );
};

/** By its id, else by its name: which need not be unique, and then only an id will do. */
async function findToken(api: Api, word: string): Promise<z.infer<typeof tokenSchema>> {
  const named: z.infer<typeof tokenSchema>[] = [];
  for await (const { items } of api.pages("/v1/tokens", tokenSchema)) {
    const exact = items.find(({ id }) => id === word);
    if (exact !== undefined) return exact;
    named.push(...items.filter(({ name }) => name === word));
  }
  const [token, ...others] = named;
  if (token === undefined) {
    throw new CellError("TOKEN_UNKNOWN", `no token has the id or the name "${word}"`, {
      nextSteps: ["cellctl token ls"],
    });
  }
  if (others.length === 0) return token;
  const ids = named.map(({ id }) => id);
  throw usage(
    `${ids.length} tokens bear the name "${word}": ${ids.join(", ")}`,
    ...ids.map((id) => `cellctl token revoke ${id}`),
  );
}

function wanted(options: Options): Record<string, unknown> {
  const subject = text(options, "subject");
  const ttl = text(options, "ttl");
  const ttlMs = ttl === undefined ? undefined : parseDuration(ttl);
  if (ttl !== undefined && (ttlMs === undefined || ttlMs < 1000)) {
    throw usage(`--ttl "${ttl}": must be a time of at least a second, such as 12h`);
  }
  return {
    role: text(options, "role"),
    ...(subject === undefined ? {} : { subject }),
    ...(ttlMs === undefined ? {} : { ttlSeconds: Math.floor(ttlMs / 1000) }),
  };
}
