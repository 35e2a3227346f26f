/** Counters of the sample application, as Prometheus text. Every series exists from the start. */

export type Counters = {
  readonly request: (status: number) => void;
  readonly outbox: (name: "sent" | "failed" | "dead") => void;
  readonly order: (replayed: boolean) => void;
  readonly text: () => string;
};

export function createCounters(): Counters {
  const requests = new Map([..."2345"].map((digit) => [`${digit}xx`, 0]));
  const outbox = new Map([
    ["sent", 0],
    ["failed", 0],
    ["dead", 0],
  ]);
  const orders = new Map([
    ["created", 0],
    ["replayed", 0],
  ]);
  const grow = (counts: Map<string, number>, name: string) =>
    counts.set(name, (counts.get(name) ?? 0) + 1);

  return {
    request: (status) => grow(requests, `${Math.floor(status / 100)}xx`),
    outbox: (name) => grow(outbox, name),
    order: (replayed) => grow(orders, replayed ? "replayed" : "created"),
    text: () =>
      [
        block("orders_app_requests_total", "Answers by class of status.", "code_class", requests),
        block("orders_app_orders_total", "Orders made, and answers repeated.", "result", orders),
        block("orders_app_outbox_total", "Outbox messages by outcome.", "result", outbox),
      ].join(""),
  };
}

function block(
  name: string,
  help: string,
  label: string,
  counts: ReadonlyMap<string, number>,
): string {
  const lines = [...counts].map(([value, count]) => `${name}{${label}="${value}"} ${count}`);
  return [`# HELP ${name} ${help}`, `# TYPE ${name} counter`, ...lines, ""].join("\n");
}
