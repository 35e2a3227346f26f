/**
 * The heaps of a process that was started with `--inspect`: of its main thread and of each worker. Asked from
 * outside, so that the router itself knows nothing of it. Every number is taken after a full collection.
 */
import { WebSocket } from "ws";

export type Inspector = {
  /** MiB in use after a collection, of each thread: objects, and buffers beside the heap. */
  readonly heaps: () => Promise<readonly number[]>;
  /** Objects by the name of their class, all threads together. */
  readonly objects: () => Promise<ReadonlyMap<string, number>>;
  readonly close: () => void;
};

type Answer = { readonly id?: number; readonly method?: string } & Readonly<
  Record<string, unknown>
>;
type OfWorker = { readonly sessionId?: string; readonly message?: string };
type Send = (method: string, params?: object) => Promise<Readonly<Record<string, unknown>>>;
type Session = {
  readonly send: Send;
  readonly hear: (message: Answer) => void;
  readonly chunks: string[];
};

const MiB = 1024 * 1024;

export async function inspect(url: string): Promise<Inspector> {
  const socket = new WebSocket(url, { perMessageDeflate: false, maxPayload: 0 });
  await new Promise((resolve, reject) => {
    socket.once("open", resolve);
    socket.once("error", reject);
  });
  const main = session((text) => socket.send(text));
  const workers = new Map<string, Session>();
  socket.on("message", (data: Buffer) => {
    const message: Answer = JSON.parse(data.toString());
    const { sessionId, message: inner } = (message["params"] ?? {}) as OfWorker;
    const own = message.method?.startsWith("NodeWorker.") === true ? String(sessionId) : undefined;
    if (own === undefined) main.hear(message);
    else if (message.method === "NodeWorker.attachedToWorker") {
      const send = (text: string) =>
        void main.send("NodeWorker.sendMessageToWorker", { sessionId: own, message: text });
      workers.set(own, session(send));
    } else if (message.method === "NodeWorker.detachedFromWorker") workers.delete(own);
    else if (inner !== undefined) workers.get(own)?.hear(JSON.parse(inner));
  });
  await main.send("NodeWorker.enable", { waitForDebuggerOnStart: false });
  const threads = () => [main, ...workers.values()];
  return {
    heaps: () => Promise.all(threads().map(heapMiB)),
    objects: async () => {
      const all = new Map<string, number>();
      for (const one of threads()) await countObjects(one, all);
      return all;
    },
    close: () => socket.terminate(),
  };
}

function session(write: (text: string) => void): Session {
  const waiting = new Map<number, (answer: Answer) => void>();
  const chunks: string[] = [];
  let last = 0;
  return {
    chunks,
    send: (method, params = {}) => {
      last += 1;
      const id = last;
      write(JSON.stringify({ id, method, params }));
      return new Promise((resolve, reject) => {
        waiting.set(id, ({ result, error }) => {
          if (error === undefined) resolve((result ?? {}) as Readonly<Record<string, unknown>>);
          else reject(new Error(`${method}: ${JSON.stringify(error)}`));
        });
      });
    },
    hear: (message) => {
      if (message.id !== undefined) {
        waiting.get(message.id)?.(message);
        waiting.delete(message.id);
      } else if (message.method === "HeapProfiler.addHeapSnapshotChunk") {
        chunks.push((message["params"] as { readonly chunk: string }).chunk);
      }
    },
  };
}

type HeapUsage = { readonly usedSize: number; readonly backingStorageSize: number };

async function heapMiB({ send }: Session): Promise<number> {
  await send("HeapProfiler.collectGarbage");
  const usage = (await send("Runtime.getHeapUsage")) as HeapUsage;
  return Math.round(((usage.usedSize + usage.backingStorageSize) / MiB) * 10) / 10;
}

type Snapshot = {
  readonly snapshot: {
    readonly meta: {
      readonly node_fields: readonly string[];
      readonly node_types: readonly (readonly string[] | string)[];
    };
  };
  readonly nodes: readonly number[];
  readonly strings: readonly string[];
};

/** A snapshot collects first by itself. */
async function countObjects({ send, chunks }: Session, all: Map<string, number>): Promise<void> {
  chunks.length = 0;
  await send("HeapProfiler.takeHeapSnapshot", { reportProgress: false });
  const { snapshot, nodes, strings }: Snapshot = JSON.parse(chunks.join(""));
  chunks.length = 0;
  const { node_fields: fields, node_types: types } = snapshot.meta;
  const [typeAt, nameAt] = [fields.indexOf("type"), fields.indexOf("name")];
  const object = (types[typeAt] ?? []).indexOf("object");
  for (let at = 0; at < nodes.length; at += fields.length) {
    if (nodes[at + typeAt] !== object) continue;
    const name = strings[nodes[at + nameAt] ?? 0] ?? "";
    all.set(name, (all.get(name) ?? 0) + 1);
  }
}
