/** `cellctl route lint`: endpoints of an OpenAPI document whose requests do not say whose they are. */
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { z } from "zod";
import { routingSchema } from "../../contract/routing-api.ts";
import { serviceRouteSchema } from "../../contract/service-route.ts";
import { tenantSourceSchema } from "../../contract/tenant-source.ts";
import { CliError, cannotRead } from "../failures.ts";
import { flag, type Options, type Register, text } from "../grammar.ts";
import type { View } from "../render/output.ts";
import { counted } from "../render/units.ts";
import { type LintedEndpoint, type LintRules, lintEndpoints } from "../route-lint/lint.ts";
import { readEndpoints } from "../route-lint/openapi.ts";
import type { Session } from "../session.ts";

/** Routing rules, or a router's static table, or a cellfleet.yaml: what they have in common. */
const rulesSchema = z
  .object({
    tenantSources: z.array(tenantSourceSchema).min(1).optional(),
    tenantKey: z.array(tenantSourceSchema).min(1).optional(),
    serviceRoutes: z.array(serviceRouteSchema).default([]),
  })
  .transform(
    ({ tenantSources, tenantKey, serviceRoutes }): LintRules => ({
      tenantSources: tenantSources ?? tenantKey ?? [{ header: "x-tenant-id" }],
      serviceRoutes,
    }),
  );

const lintView: View<LintedEndpoint> = {
  id: ({ id }) => id,
  columns: [
    { head: "ENDPOINT", cell: ({ id }) => id },
    { head: "CLASS", cell: (one) => one.class },
    { head: "VERDICT", cell: ({ verdict }) => verdict },
    { head: "WHY", cell: (one) => one.text },
  ],
};

export const register: Register = (noun, bind) => {
  bind(
    noun
      .command("lint <file>")
      .description("endpoints of an OpenAPI document (YAML or JSON) that carry no tenant key")
      .option("--routing <file>", "rules of this file instead of the fleet's")
      .option("--all", "show the endpoints that are well named, too")
      .option("--strict", "fail also where the tenant is only optional"),
    async (session, [file = ""], options) => lint(session, file, options),
  );
};

async function lint(session: Session, file: string, options: Options): Promise<number> {
  const endpoints = readEndpoints(await readYaml(session, file));
  if (endpoints === undefined) {
    throw new CliError("FILE_UNREADABLE", `${file} is no OpenAPI 3 document`, {
      nextSteps: ["it begins with `openapi: 3.…` and has `paths`"],
    });
  }
  const rules = await readRules(session, text(options, "routing"));
  const linted = lintEndpoints(endpoints, rules);
  const failing = linted.filter(
    ({ verdict }) =>
      verdict === "missing" || (verdict === "may-be-missing" && flag(options, "strict")),
  );
  const open = linted.filter(
    ({ verdict }) => verdict === "missing" || verdict === "may-be-missing",
  );
  const shown = flag(options, "all") || session.out.structured ? linted : open;
  await session.out.list(onePage(shown), lintView);
  await session.note(
    `${counted(linted.length, "endpoint")} looked at, ${failing.length} of them at fault.`,
  );
  if (failing.length === 0) return 0;
  throw new CliError("LINT_FAILED", `${counted(failing.length, "endpoint")} without a tenant key`, {
    nextSteps: [
      "say in the document where the request carries its tenant (parameter, security scheme, server)",
      "or give the path a class that needs none: cellctl routing get -o yaml, add to serviceRoutes, cellctl routing set -f",
    ],
  });
}

async function* onePage<T>(items: readonly T[]) {
  yield { items, next: null };
}

async function readRules(session: Session, file: string | undefined): Promise<LintRules> {
  if (file === undefined) {
    const { tenantSources, serviceRoutes } = await (await session.api()).get(
      "/v1/routing",
      routingSchema,
    );
    return { tenantSources, serviceRoutes };
  }
  const parsed = rulesSchema.safeParse(await readYaml(session, file));
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new CliError(
    "FILE_UNREADABLE",
    `${file} holds no routing rules: ${issue?.path.join(".")}: ${issue?.message}`,
    { nextSteps: ["cellctl routing get -o yaml prints those of the fleet"] },
  );
}

/** YAML reads JSON too. */
async function readYaml(session: Session, path: string): Promise<unknown> {
  const { parse } = await import("yaml");
  try {
    const value: unknown = parse(await readFile(resolve(session.io.cwd, path), "utf8"));
    return value;
  } catch (cause) {
    throw cannotRead(path, cause);
  }
}
