/** `cellctl routing …`: where in a request the tenant and the service are named; services outside of cells. */
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import type { z } from "zod";
import { routingSchema } from "../../contract/routing-api.ts";
import { cannotRead } from "../failures.ts";
import { mutation, type Register } from "../grammar.ts";
import { mutate } from "../mutate.ts";
import type { View } from "../render/output.ts";
import type { Session } from "../session.ts";

type Routing = z.infer<typeof routingSchema>;

const one = (value: object): string =>
  Object.entries(value)
    .map(([name, content]) =>
      typeof content === "object" && content !== null
        ? `${name} (${one(content)})`
        : `${name} ${String(content)}`,
    )
    .join(", ");

const limitsOf = ({ tenantLimits }: NonNullable<Routing["policy"]>): string[] => [
  ...(tenantLimits?.default === undefined ? [] : [`each  ${one(tenantLimits.default)}`]),
  ...Object.entries(tenantLimits?.tenants ?? {}).map(([name, limit]) => `${name}  ${one(limit)}`),
];

const routingView: View<Routing> = {
  id: () => "routing",
  columns: [{ head: "ROUTING", cell: () => "routing" }],
  details: ({ tenantSources, serviceRoutes, globalServices = {}, policy = {} }) => [
    ["tenant named by", tenantSources.map(one)],
    ["service chosen by", serviceRoutes.map(one)],
    [
      "global services",
      Object.entries(globalServices).map(
        ([name, { endpoints }]) => `${name}  ${endpoints.join(" ")}`,
      ),
    ],
    ["limits of tenants", limitsOf(policy)],
    ["flags", Object.entries(policy.flags ?? {}).map(([name, flag]) => `${name}  ${one(flag)}`)],
    [
      "rings",
      Object.entries(policy.rings ?? {}).map(([name, cells]) => `${name}  ${cells.join(" ")}`),
    ],
  ],
};

export const register: Register = (noun, bind) => {
  bind(noun.command("get").description("the lists in use, first match first"), async (session) => {
    const api = await session.api();
    await session.out.one(await api.get("/v1/routing", routingSchema), routingView);
    return 0;
  });
  bind(
    mutation(
      noun
        .command("set")
        .description("replace the lists; start from: cellctl routing get -o yaml")
        .requiredOption(
          "-f, --file <file>",
          "JSON or YAML with tenantSources and serviceRoutes; globalServices and policy stay where none are given",
        ),
    ),
    async (session, _args, options) => {
      const body = await readRouting(session, String(options["file"]));
      return mutate(session, options, { method: "PUT", path: "/v1/routing", body });
    },
  );
};

async function readRouting(session: Session, path: string): Promise<Record<string, unknown>> {
  const { parse } = await import("yaml");
  try {
    // YAML reads JSON too.
    const value: unknown = parse(await readFile(resolve(session.io.cwd, path), "utf8"));
    return typeof value === "object" && value !== null ? { ...value } : {};
  } catch (cause) {
    throw cannotRead(path, cause);
  }
}
