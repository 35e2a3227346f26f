/** For tests only: cells with a gate; tables and a control plane come from the table's own fixture. */
import { createServer, type RequestListener } from "node:http";
import { closeServer, listenOn, type Placements, textOf } from "../table/table.fixture.ts";

export type TestCell = {
  readonly url: string;
  readonly port: number;
  /** Method, path, tenant, epoch and body of each request that the application saw. */
  readonly seen: string[];
  readonly close: () => Promise<void>;
};

/**
 * A cell whose gate admits `placements` (as in the table), confirms, and answers with its own name;
 * `serve` replaces the application.
 */
export async function startCell(
  id: string,
  owned: () => Placements,
  serve: RequestListener = (_req, res) => void res.end(`answer of ${id}\n`),
  port: number = 0,
): Promise<TestCell> {
  const seen: string[] = [];
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
    seen.push([req.method, req.url, tenant, epoch, await textOf(req)].join(" "));
    res.setHeader("x-cellfleet-confirm", `cell=${id};epoch=${epoch};lease=1000`);
    serve(req, res);
  });
  const at = await listenOn(server, port);
  return { url: `http://127.0.0.1:${at}`, port: at, seen, close: () => closeServer(server) };
}
