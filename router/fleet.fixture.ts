/** For tests only: cells with a gate; tables and a control plane come from the table's own fixture. */
import { createServer, type RequestListener } from "node:http";
import { confirmAgain, confirmPath } from "../contract/headers.ts";
import { closeServer, listenOn, type Placements, textOf } from "../table/table.fixture.ts";

export type TestCell = {
  readonly url: string;
  readonly port: number;
  /** Method, path, tenant, epoch and body of each request that the application saw. */
  readonly seen: string[];
  /** Tenants whose answers the gate was asked to confirm once more. */
  readonly askedAgain: string[];
  readonly close: () => Promise<void>;
};

/** What is left of its lease, and what its gate puts beside that on each answer. */
export type TestGate = {
  readonly leaseMs: () => number;
  readonly more?: () => Readonly<Record<string, string>>;
  /** When it is asked once more; absent: at once. */
  readonly again?: Promise<void>;
};
/** Longer than a busy machine needs for anything here. */
const anyTime: TestGate = { leaseMs: () => 60_000 };

/**
 * A cell whose gate admits `placements` (as in the table), confirms, and answers with its own name;
 * `serve` replaces the application.
 */
export async function startCell(
  id: string,
  owned: () => Placements,
  serve: RequestListener = (_req, res) => void res.end(`answer of ${id}\n`),
  port: number = 0,
  gate: TestGate = anyTime,
): Promise<TestCell> {
  const seen: string[] = [];
  const askedAgain: string[] = [];
  const server = createServer(async (req, res) => {
    const name = (header: string) => String(req.headers[header] ?? "");
    const tenant = name("x-cellfleet-tenant");
    const epoch = name("x-cellfleet-epoch");
    if (owned()[tenant] !== `${id} ${epoch}`) {
      const code = "PLACEMENT_STALE";
      res.writeHead(421, {
        "x-cellfleet-not-admitted": name("x-cellfleet-nonce"),
        "x-cellfleet-error": code,
      });
      res.end(JSON.stringify({ error: { code, message: "stale", next_steps: [] } }));
      return;
    }
    const confirms = () => `cell=${id};epoch=${epoch};lease=${gate.leaseMs()}`;
    if (req.url === confirmPath && req.headers["x-cellfleet-confirm"] === confirmAgain) {
      askedAgain.push(tenant);
      await gate.again;
      res.writeHead(204, { "x-cellfleet-confirm": confirms() }).end();
      return;
    }
    seen.push([req.method, req.url, tenant, epoch, await textOf(req)].join(" "));
    res.setHeader("x-cellfleet-confirm", confirms());
    for (const [name, value] of Object.entries(gate.more?.() ?? {})) res.setHeader(name, value);
    serve(req, res);
  });
  const at = await listenOn(server, port);
  return {
    url: `http://127.0.0.1:${at}`,
    port: at,
    seen,
    askedAgain,
    close: () => closeServer(server),
  };
}
