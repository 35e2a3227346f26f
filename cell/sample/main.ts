/**
 * The sample application, as anybody would start theirs: PORT (0 lets the system choose), HOST,
 * DATABASE_URL, CELL_ID, and OUTBOX_URL for messages that go to another system; OUTBOX_ATTEMPTS says
 * how often a message is tried before it is dead.
 *
 * Says `app.listening` with its port as one JSON line on standard output, then only what changes.
 */
import { serve } from "@hono/node-server";
import { createApp } from "./app.ts";
import { openDatabase } from "./database.ts";
import { messageOf } from "./errors.ts";
import { createCounters } from "./metrics.ts";
import { startOutboxWorker } from "./outbox.ts";
import { attemptsMax } from "./outbox-rules.ts";
import { wholeNumber } from "./validate.ts";

const stopMs = 5000;

const say = (event: string, fields: Readonly<Record<string, unknown>>): void => {
  process.stdout.write(
    `${JSON.stringify({ time: new Date().toISOString(), part: "app", event, ...fields })}\n`,
  );
};

function main(): void {
  const { PORT, HOST, DATABASE_URL, CELL_ID, OUTBOX_URL, OUTBOX_ATTEMPTS } = process.env;
  const port = wholeNumber(PORT ?? "");
  if (port === undefined || port > 65_535 || !DATABASE_URL || !CELL_ID) {
    process.stderr.write("PORT (0 to 65535), DATABASE_URL and CELL_ID must be set\n");
    process.exitCode = 78;
    return;
  }
  const counters = createCounters();
  const database = openDatabase(DATABASE_URL, (error) => say("database.lost", { error }));
  const worker = startOutboxWorker({
    database,
    url: OUTBOX_URL === "" ? undefined : OUTBOX_URL,
    attemptsMax: wholeNumber(OUTBOX_ATTEMPTS ?? "") || attemptsMax,
    onEvent: counters.outbox,
    onTrouble: (error) => say("outbox.waiting", { error }),
  });
  const app = createApp({
    cell: CELL_ID,
    database,
    counters,
    onOrder: worker.wake,
    onFault: (error) => say("request.failed", { error: messageOf(error) }),
  });
  const server = serve(
    {
      fetch: app.fetch,
      port,
      hostname: HOST ?? "127.0.0.1",
      // Kept open longer than a proxy keeps an idle connection, so that it never meets a closed one.
      serverOptions: { requestTimeout: 30_000, headersTimeout: 10_000, keepAliveTimeout: 75_000 },
    },
    (address) => say("app.listening", { port: address.port, cell: CELL_ID }),
  );
  server.on("error", (error) => {
    process.stderr.write(`cannot listen: ${messageOf(error)}\n`);
    process.exit(1);
  });

  const stop = (): void => {
    setTimeout(() => process.exit(1), stopMs).unref();
    server.close(() => {
      void worker
        .close()
        .then(database.close)
        .then(() => process.exit(0));
    });
    if ("closeIdleConnections" in server) server.closeIdleConnections();
  };
  process.once("SIGTERM", stop);
  process.once("SIGINT", stop);
}

main();
