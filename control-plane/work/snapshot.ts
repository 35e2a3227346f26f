/**
 * The routing table as a router reads it at first start: head, placements in bulk, signed tail.
 * Built in one synchronous run, so that no change can come in between; a million placements take
 * a fraction of a second, and the result is shared by all readers until the log has moved on.
 */
import { createHash } from "node:crypto";
import type { SnapshotHead, SnapshotTail } from "../../contract/routing-table.ts";
import type { TableState } from "../../contract/table-state.ts";
import { type Signer, signaturePurposes } from "../../runtime/signing.ts";
import type { TableSnapshot } from "../api/routing-feed.ts";

export function buildSnapshot(table: TableState, signer: Signer): TableSnapshot {
  const hash = createHash("sha256");
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  const add = (line: object): Uint8Array => {
    const chunk = Buffer.from(`${JSON.stringify(line)}\n`, "utf8");
    chunks.push(chunk);
    bytes += chunk.length;
    return chunk;
  };
  const head: SnapshotHead = {
    kind: "cellfleet.routing-table",
    version: 1,
    fleet: table.fleet,
    revision: table.revision,
    ...table.lists,
    placements: table.size,
  };
  hash.update(add(head));
  for (const group of table.groups()) hash.update(add(group));
  const digest = hash.digest("hex");
  const tail: SnapshotTail = {
    digest,
    checksum: table.checksum,
    keyId: signer.keyId,
    signature: signer.sign(signaturePurposes.routingTable, digest),
  };
  add(tail);
  return { revision: table.revision, chunks, bytes };
}
