/**
 * The supervisor's door on the loopback address: the provider API for the control plane
 * (contract/provider-api.ts), and processes by name for `cellctl dev ps|stop|start|kill`.
 *
 * Whoever holds the token may stop everything here, so every call needs it, whatever the path.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { type ServerType, serve } from "@hono/node-server";
import { type Context, Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import { z } from "zod";
import { CellError, errorBody, errorTable } from "../contract/errors.ts";
import { type CellId, nameRule, parseCellId } from "../contract/ids.ts";
import { providerActions, providerRequestSchema } from "../contract/provider-api.ts";
import type { LocalCells } from "./cell-processes.ts";
import { host } from "./programs.ts";
import type { Unit } from "./unit.ts";

const processActions = ["start", "stop", "kill"] as const;

export type ProviderServer = {
  readonly port: number;
  readonly close: () => Promise<void>;
};

const bodyBytesMax = 16 * 1024;

export type ProviderOptions = {
  readonly port: number;
  readonly token: string;
  readonly cells: LocalCells;
  readonly units: () => readonly Unit[];
  /** Called when a cell was acted on: cells may have come, gone, or moved to other ports. */
  readonly onCells: () => Promise<void>;
  /** Told of every error that is not a refusal. */
  readonly onFault: (error: unknown) => void;
};

export async function startProviderServer(options: ProviderOptions): Promise<ProviderServer> {
  const app = createProviderApp(options);
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  const server = serve({ fetch: app.fetch, port: options.port, hostname: host }, ({ port }) =>
    resolve(port),
  );
  server.once("error", reject);
  const port = await promise;
  return { port, close: () => closeServer(server) };
}

function createProviderApp(options: ProviderOptions): Hono {
  const app = new Hono();
  const expected = digest(`Bearer ${options.token}`);
  app.onError((error) => {
    if (!(error instanceof CellError)) options.onFault(error);
    return answerError(error);
  });
  app.notFound(() => answerError(new CellError("NOT_FOUND", "there is nothing at this address")));
  app.use(async (context, next) => {
    const given = digest(context.req.header("authorization") ?? "");
    if (!timingSafeEqual(given, expected)) {
      throw new CellError("UNAUTHENTICATED", "the provider's own token is needed here");
    }
    await next();
  });
  app.use(
    bodyLimit({
      maxSize: bodyBytesMax,
      onError: () => {
        throw new CellError("BODY_TOO_LARGE", `the body is larger than ${bodyBytesMax} bytes`);
      },
    }),
  );

  app.get("/v1/cells/:id", (context) => {
    return context.json(options.cells.describe(cellIdOf(context.req.param("id"))));
  });
  app.post("/v1/cells/:id/:action", async (context) => {
    const id = cellIdOf(context.req.param("id"));
    const action = oneOf(providerActions, context.req.param("action"));
    const body = providerRequestSchema.safeParse(await jsonOf(context));
    if (!body.success) throw new CellError("VALIDATION_FAILED", z.prettifyError(body.error));
    const answer = await options.cells.act(id, action, body.data);
    await options.onCells();
    return context.json(answer);
  });

  app.get("/v1/processes", (context) => {
    return context.json({ items: options.units().map((unit) => unit.status()), next: null });
  });
  app.post("/v1/processes/:name/:action", async (context) => {
    const name = context.req.param("name");
    const action = oneOf(processActions, context.req.param("action"));
    const unit = options.units().find((one) => one.name === name);
    if (unit === undefined) {
      throw new CellError("NOT_FOUND", `there is no process ${JSON.stringify(name)}`, {
        details: { known: options.units().map((one) => one.name) },
        nextSteps: ["cellctl dev ps"],
      });
    }
    await unit[action]();
    return context.json(unit.status());
  });
  return app;
}

function answerError(error: unknown): Response {
  const known =
    error instanceof CellError
      ? new CellError(error.code, inOneLine(error.message), {
          details: error.details,
          nextSteps: error.nextSteps,
        })
      : new CellError("INTERNAL", `a fault in the supervisor: ${inOneLine(reasonOf(error))}`);
  const status = errorTable[known.code].httpStatus;
  return new Response(JSON.stringify(errorBody(known)), {
    status,
    headers: { "content-type": "application/json" },
  });
}

const reasonOf = (error: unknown): string =>
  error instanceof Error ? error.message : String(error);

/** It becomes the headline of an operation; the lines are a child's output, or findings. */
const inOneLine = (text: string): string =>
  text
    .split(/\r\n|\r|\n/)
    .map((line) => line.trim())
    .filter((line) => line !== "")
    .join(" | ");

function cellIdOf(raw: string): CellId {
  const id = parseCellId(raw);
  if (id === undefined) throw new CellError("VALIDATION_FAILED", `a cell id is ${nameRule}`);
  return id;
}

function oneOf<const T extends string>(known: readonly T[], raw: string): T {
  const found = known.find((one) => one === raw);
  if (found === undefined) throw new CellError("NOT_FOUND", `the actions are ${known.join(", ")}`);
  return found;
}

async function jsonOf(context: Context): Promise<unknown> {
  try {
    return await context.req.json();
  } catch {
    return undefined; // Not JSON: the schema says what was expected.
  }
}

/** Of equal length whatever was given, as timingSafeEqual needs it. */
const digest = (text: string): Buffer => createHash("sha256").update(text).digest();

function closeServer(server: ServerType): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    if ("closeAllConnections" in server) server.closeAllConnections();
  });
}
