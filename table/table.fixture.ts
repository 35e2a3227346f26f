/** For tests only: tables with real signatures, and a control plane that speaks the wire. */
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import {
  type RouterAcks,
  type RouterSyncRequest,
  routerAcksSchema,
  routerSyncRequestSchema,
} from "../contract/cell-protocol.ts";
import {
  type CellId,
  defaultKeyspace,
  parseCellId,
  parseEpoch,
  parseRevision,
} from "../contract/ids.ts";
import type {
  DeltaBody,
  PlacementGroup,
  RouteState,
  SignedDelta,
} from "../contract/routing-table.ts";
import {
  buildTable,
  isTableRefusal,
  type TableHead,
  type TableState,
} from "../contract/table-state.ts";
import { must } from "../runtime/assert.ts";
import { createSigner, generateKey, type Signer, signaturePurposes } from "../runtime/signing.ts";

export const keys = generateKey("k1");
export const signer: Signer = createSigner(keys.privateKey);
export const otherSigner: Signer = createSigner(generateKey("k1").privateKey);

/** `tenant: "cell epoch state"`, as short as a test wants it. */
export type Placements = Readonly<Record<string, string>>;

export const groupsOf = (placements: Placements): PlacementGroup[] =>
  Object.entries(placements).map(([tenant, text]) => {
    const [cell = "", epoch = "1", state = "active"] = text.split(" ");
    return {
      keyspace: defaultKeyspace,
      kind: "tenant",
      cell: must(parseCellId(cell), "cell id"),
      epoch: must(parseEpoch(Number(epoch)), "epoch"),
      state: state as RouteState,
      values: [tenant],
    };
  });

export function tableOf(
  revision: number,
  placements: Placements,
  cells: Readonly<Record<string, readonly string[]>> = {},
  fleet: string = "fleet-1",
  lists: Partial<TableHead> = {},
): TableState {
  const table = buildTable(
    {
      fleet,
      revision: must(parseRevision(revision), "revision"),
      tenantSources: [{ header: "x-tenant-id" }],
      serviceRoutes: [],
      keyspaces: [{ name: defaultKeyspace, strategy: "directory", guardMode: "strict" }],
      cells: Object.entries(cells).map(([id, endpoints]) => ({
        id: must(parseCellId(id), "cell id"),
        services: { default: { endpoints: [...endpoints] } },
      })),
      ...lists,
    },
    groupsOf(placements),
  );
  if (isTableRefusal(table)) throw new Error(table.text);
  return table;
}

/** The signed snapshot, as its bytes. */
export function snapshotOf(table: TableState, by: Signer = signer, more: object = {}): Buffer {
  const head = {
    ...{
      kind: "cellfleet.routing-table",
      version: 1,
      fleet: table.fleet,
      revision: table.revision,
    },
    ...table.lists,
    placements: table.size,
    ...(table.aliasCount === 0 ? {} : { aliases: table.aliasCount }),
    ...more,
  };
  const lines = [head, ...table.groups(), ...table.aliasGroups()]
    .map((line) => `${JSON.stringify(line)}\n`)
    .join("");
  const digest = createHash("sha256").update(lines).digest("hex");
  const signature = by.sign(signaturePurposes.routingTable, digest);
  const tail = { digest, checksum: table.checksum, keyId: by.keyId, signature };
  return Buffer.from(`${lines}${JSON.stringify(tail)}\n`);
}

/** The signed delta that moves `table` on by one revision; the table itself is not moved. */
export function deltaOf(
  table: TableState,
  upserts: Placements,
  deletes: readonly string[] = [],
  by: Signer = signer,
  more: Partial<DeltaBody> = {},
): SignedDelta {
  const change = {
    ...more,
    fleet: table.fleet,
    from: table.revision,
    to: must(parseRevision(table.revision + 1), "revision"),
    upserts: groupsOf(upserts),
    deletes: deletes.map((tenant) => `default/tenant/${tenant}`),
  };
  const checksum = table.checksumAfter(change);
  if (typeof checksum !== "string") throw new Error(checksum.text);
  const body = JSON.stringify({ ...change, checksum });
  return { body, keyId: by.keyId, signature: by.sign(signaturePurposes.delta, body) };
}

export type TestControlPlane = {
  readonly url: string;
  /** Every question a router asked, newest last. */
  readonly asked: RouterSyncRequest[];
  /** The address of each. */
  readonly paths: string[];
  /** Pages of acknowledged writes, as they came. */
  readonly acks: RouterAcks[];
  /** From now on the acknowledged writes of this cell are asked for, until they are told as collected. */
  readonly collect: (failover: string, cell: string) => void;
  /** Snapshots handed out. */
  readonly snapshots: () => number;
  readonly table: () => TableState;
  /** One revision more; routers that wait hear of it at once. */
  readonly change: (upserts: Placements, deletes?: readonly string[]) => void;
  /** One revision more, with this in its delta. */
  readonly changeNames: (more: Partial<DeltaBody>) => void;
  /** What is answered next, once, in place of the delta. */
  readonly cheatNext: (delta: SignedDelta) => void;
  readonly serve: (table: TableState) => void;
  readonly close: () => Promise<void>;
};

function createCollecting() {
  const acks: RouterAcks[] = [];
  const collect: { failover: string; cell: CellId }[] = [];
  return {
    acks,
    begin: (failover: string, cell: CellId) => collect.push({ failover, cell }),
    wantedOf: ({ collected = [] }: RouterSyncRequest) =>
      collect.filter(({ failover }) => !collected.includes(failover)),
    take: (text: string) => {
      const page = routerAcksSchema.parse(JSON.parse(text));
      acks.push(page);
      return JSON.stringify({ kept: page.entries.length });
    },
  };
}

export async function startControlPlane(
  first: TableState,
  port: number = 0,
): Promise<TestControlPlane> {
  let table = first;
  let deltas = new Map<number, SignedDelta>();
  let cheat: SignedDelta | undefined;
  let snapshots = 0;
  const waiting: Array<() => void> = [];
  const asked: RouterSyncRequest[] = [];
  const paths: string[] = [];
  const collecting = createCollecting();
  const wake = () => {
    for (const one of waiting.splice(0)) one();
  };
  const nextAnswer = (question: RouterSyncRequest) => {
    const delta = cheat ?? deltas.get(question.revision);
    cheat = undefined;
    if (delta !== undefined) return { kind: "delta", delta };
    const same = question.revision === table.revision && question.checksum === table.checksum;
    return { kind: same ? "unchanged" : "snapshot" };
  };
  const advance = (delta: SignedDelta) => {
    deltas.set(table.revision, delta);
    const problem = table.apply(JSON.parse(delta.body));
    if (problem !== undefined) throw new Error(problem.text);
    wake();
  };
  const server = createServer(async (req, res) => {
    if (req.url === "/v1/machine/routing-table") {
      snapshots += 1;
      res.end(snapshotOf(table));
      return;
    }
    if (req.url === "/v1/machine/router/acks") {
      res.end(collecting.take(await textOf(req)));
      return;
    }
    const question = routerSyncRequestSchema.parse(JSON.parse(await textOf(req)));
    asked.push(question);
    paths.push(req.url ?? "");
    const answer = () =>
      res.end(
        JSON.stringify({
          nonce: question.nonce,
          revision: table.revision,
          collect: collecting.wantedOf(question),
          answer: nextAnswer(question),
        }),
      );
    const news =
      question.waitMs === 0 ||
      collecting.wantedOf(question).length > 0 ||
      cheat !== undefined ||
      question.revision !== table.revision ||
      question.checksum !== table.checksum;
    if (news) answer();
    else waiting.push(answer);
  });
  const at = await listenOn(server, port);
  return {
    url: `http://127.0.0.1:${at}`,
    asked,
    paths,
    acks: collecting.acks,
    collect: (failover, cell) => {
      collecting.begin(failover, cell as CellId);
      wake();
    },
    snapshots: () => snapshots,
    table: () => table,
    change: (upserts, deletes = []) => advance(deltaOf(table, upserts, deletes)),
    changeNames: (more) => advance(deltaOf(table, {}, [], signer, more)),
    cheatNext: (delta) => {
      cheat = delta;
      wake();
    },
    serve: (next) => {
      table = next;
      deltas = new Map();
      wake();
    },
    close: () => closeServer(server),
  };
}

export async function textOf(req: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of req) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString("utf8");
}

export async function listenOn(server: Server, port: number): Promise<number> {
  await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}

export async function closeServer(server: Server): Promise<void> {
  const closed = new Promise((resolve) => server.close(resolve));
  server.closeAllConnections();
  await closed;
}
