/** `cellctl token …`: who may ask the control plane for what. */

import type { z } from "zod";
import { createdTokenSchema, tokenSchema } from "../../contract/control-api.ts";
import { apiPath } from "../api.ts";
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
    destructive(noun.command("revoke <token>").description("make a token worthless, at once")),
    async (session, [id = ""], options) => {
      const effect = `Whoever uses token ${id} will be refused from now on.`;
      return mutate(session, options, {
        method: "DELETE",
        path: apiPath`/v1/tokens/${id}`,
        danger: { name: id, effect },
      });
    },
  );
};

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
