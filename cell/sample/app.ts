/**
 * The orders API. Who the tenant is, and under which key and epoch the cell serves it, stands in
 * three headers that the gate in front of this application has checked; without them nothing is
 * answered. Every transaction enters key and epoch first, so the database checks them again.
 */
import { type Context, Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import type { Database, Scope } from "./database.ts";
import { AppError, errorBody, fromDatabaseError } from "./errors.ts";
import type { Counters } from "./metrics.ts";
import { createOrder, findOrder, isUsedMeanwhile, listOrders } from "./orders.ts";
import { readOutbox } from "./outbox-store.ts";
import {
  nextPath,
  parseIdempotencyKey,
  parseNewOrder,
  parsePage,
  wholeNumber,
} from "./validate.ts";

export type AppOptions = {
  readonly cell: string;
  readonly database: Database;
  readonly counters: Counters;
  /** An order was committed: the outbox has something. */
  readonly onOrder: () => void;
  /** An answer of 500: a fault in this application, worth a log line. */
  readonly onFault: (error: unknown) => void;
};

const bodyBytesMax = 64 * 1024;

type Caller = { readonly tenant: string; readonly scope: Scope };

export function createApp(options: AppOptions): Hono {
  const { database, counters } = options;
  const app = new Hono();

  app.use(async (context, next) => {
    await next();
    counters.request(context.res.status);
  });
  addProbes(app, options);

  app.post("/orders", limitBody, async (context) => {
    const { tenant, scope } = parseCaller(context);
    const key = parseIdempotencyKey(context.req.header("idempotency-key"));
    const order = parseNewOrder(await context.req.text());
    const create = () =>
      database.transaction([scope], (client) => createOrder(client, tenant, order, key));
    const created = await create().catch((error: unknown) => {
      if (isUsedMeanwhile(error)) return create();
      throw error;
    });
    counters.order(created.replayed);
    if (!created.replayed) options.onOrder();
    return new Response(created.body, {
      status: created.status,
      headers: {
        "content-type": "application/json",
        ...(created.replayed ? { "idempotent-replayed": "true" } : {}),
      },
    });
  });

  app.get("/orders", async (context) => {
    const { tenant, scope } = parseCaller(context);
    const limit = context.req.query("limit");
    const page = parsePage(limit, context.req.query("cursor"));
    const { items, lastId } = await database.transaction([scope], (client) =>
      listOrders(client, tenant, page),
    );
    return context.json({ items, next: lastId === undefined ? null : nextPath(lastId, limit) });
  });

  app.get("/orders/:id", async (context) => {
    const { tenant, scope } = parseCaller(context);
    const id = wholeNumber(context.req.param("id"));
    const order =
      id === undefined
        ? undefined
        : await database.transaction([scope], (client) => findOrder(client, tenant, id));
    if (order === undefined) throw new AppError(404, "NOT_FOUND", "there is no such order");
    return context.json(order);
  });

  app.get("/outbox", async (context) => {
    const { tenant, scope } = parseCaller(context);
    return context.json(
      await database.transaction([scope], (client) => readOutbox(client, tenant)),
    );
  });

  app.get("/whoami", async (context) => {
    const { tenant, scope } = parseCaller(context);
    // The database has the last word on whether this cell serves the tenant.
    await database.transaction([scope], async () => {});
    return context.json({ cell: options.cell, tenant, epoch: scope.epoch });
  });

  app.notFound((context) =>
    answer(context, new AppError(404, "NOT_FOUND", "there is nothing at this address")),
  );
  app.onError((error, context) => {
    const known = fromDatabaseError(error);
    if (known.status === 500) options.onFault(error);
    return answer(context, known);
  });
  return app;
}

function addProbes(app: Hono, options: AppOptions): void {
  app.get("/livez", (context) => context.text("ok\n"));
  app.get("/readyz", async (context) => {
    await options.database.transaction([], (client) => client.query("select 1"));
    return context.text("ok\n");
  });
  app.get("/metrics", (context) => {
    context.header("content-type", "text/plain; version=0.0.4");
    return context.body(options.counters.text());
  });
}

const limitBody = bodyLimit({
  maxSize: bodyBytesMax,
  onError: () => {
    throw new AppError(413, "BODY_TOO_LARGE", `the body is larger than ${bodyBytesMax} bytes`);
  },
});

function parseCaller(context: Context): Caller {
  const tenant = context.req.header("x-cellfleet-tenant");
  const key = context.req.header("x-cellfleet-key");
  const epoch = wholeNumber(context.req.header("x-cellfleet-epoch") ?? "");
  if (tenant === undefined || key === undefined || epoch === undefined) {
    throw new AppError(400, "TENANT_MISSING", "the request did not come through the cell's gate", {
      nextSteps: ["send it to a router of the fleet"],
    });
  }
  return { tenant, scope: { key, epoch } };
}

function answer(context: Context, error: AppError): Response {
  if (error.retryAfterSeconds !== undefined) {
    context.header("retry-after", String(error.retryAfterSeconds));
  }
  return context.json(errorBody(error), error.status);
}
