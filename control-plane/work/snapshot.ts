/**
 * The routing table as a router reads it at first start: head, placements and names in bulk, signed
 * tail; and shared by all readers until the log has moved on too far.
 */
import { createHash } from "node:crypto";
import type { SnapshotHead, SnapshotTail } from "../../contract/routing-table.ts";
import type { TableState } from "../../contract/table-state.ts";
import { type Signer, signaturePurposes } from "../../runtime/signing.ts";
import type { TableSnapshot } from "../api/routing-feed.ts";

export type SnapshotWriter = {
  readonly line: (line: object) => void;
  /** Signs what was written; `table` is what a reader must arrive at. */
  readonly end: (table: TableState) => TableSnapshot;
};

export function createSnapshotWriter(signer: Signer): SnapshotWriter {
  const hash = createHash("sha256");
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  const add = (line: object): Uint8Array => {
    const chunk = Buffer.from(`${JSON.stringify(line)}\n`, "utf8");
    chunks.push(chunk);
    bytes += chunk.length;
    return chunk;
  };
  return {
    line: (line) => {
      hash.update(add(line));
    },
    end: (table) => {
      const digest = hash.digest("hex");
      const tail: SnapshotTail = {
        digest,
        checksum: table.checksum,
        keyId: signer.keyId,
        signature: signer.sign(signaturePurposes.routingTable, digest),
      };
      add(tail);
      return { revision: table.revision, chunks, bytes };
    },
  };
}

export const snapshotHead = (
  table: TableState,
  counts: { readonly placements: number; readonly aliases: number },
): SnapshotHead => ({
  kind: "cellfleet.routing-table",
  version: 1,
  fleet: table.fleet,
  revision: table.revision,
  ...table.lists,
  placements: counts.placements,
  // Absent where there are none, as in tables from before there were names.
  ...(counts.aliases === 0 ? {} : { aliases: counts.aliases }),
});

/** In one synchronous run, so that no change can come in between: for tables that are not large. */
export function buildSnapshot(table: TableState, signer: Signer): TableSnapshot {
  const writer = createSnapshotWriter(signer);
  writer.line(snapshotHead(table, { placements: table.size, aliases: table.aliasCount }));
  for (const group of table.groups()) writer.line(group);
  for (const group of table.aliasGroups()) writer.line(group);
  return writer.end(table);
}
