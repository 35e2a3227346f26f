/**
 * Reads messages of PostgreSQL's `pgoutput` plugin, protocol version 1, values as text. Pure.
 * https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
 *
 * What must always be true: no byte is read past the end of a message, and none is left; whatever does not
 * fit is a `PgoutputFault`, never half a row.
 */

/** Undefined: a large value that did not change, so it was not sent. */
export type TupleValue = string | null | undefined;

export type RelationMessage = {
  readonly kind: "relation";
  readonly id: number;
  readonly schema: string;
  readonly table: string;
  readonly columns: ReadonlyArray<{ readonly name: string; readonly isKey: boolean }>;
};
export type RowMessage = {
  readonly kind: "insert" | "update" | "delete";
  readonly relation: number;
  /** `key`: the replica identity's columns alone; `row`: all. Absent where it was not sent. */
  readonly old:
    | { readonly holds: "key" | "row"; readonly values: readonly TupleValue[] }
    | undefined;
  readonly new: readonly TupleValue[] | undefined;
};
export type PgoutputMessage =
  | {
      readonly kind: "begin";
      /** Of the commit record, `0/16B3748`. */
      readonly lsn: string;
      /** Microseconds since the epoch. */
      readonly committedAtUs: bigint;
    }
  | { readonly kind: "commit"; readonly lsn: string; readonly endLsn: string }
  | RelationMessage
  | RowMessage
  | { readonly kind: "truncate"; readonly relations: readonly number[] }
  /** Origin, type, message: nothing of a row. */
  | { readonly kind: "other" };

export class PgoutputFault extends Error {
  override readonly name = "PgoutputFault";
}

/** PostgreSQL counts from 2000-01-01. */
const epochUs = 946_684_800_000_000n;

export function parsePgoutput(bytes: Buffer): PgoutputMessage {
  const reader = new Reader(bytes);
  const message = readMessage(reader);
  if (message.kind !== "other") reader.expectEnd();
  return message;
}

function readMessage(reader: Reader): PgoutputMessage {
  const type = reader.letter();
  switch (type) {
    case "B": {
      const lsn = reader.lsn();
      const committedAtUs = reader.int64() + epochUs;
      reader.int32(); // The transaction's number.
      return { kind: "begin", lsn, committedAtUs };
    }
    case "C": {
      reader.int8(); // Flags; none is in use.
      const lsn = reader.lsn();
      const endLsn = reader.lsn();
      reader.int64();
      return { kind: "commit", lsn, endLsn };
    }
    case "R":
      return readRelation(reader);
    case "I":
    case "U":
    case "D":
      return readRow(reader, type);
    case "T": {
      const count = reader.int32();
      reader.int8();
      return { kind: "truncate", relations: reader.times(count, 4, () => reader.int32()) };
    }
    case "O":
    case "Y":
    case "M":
      return { kind: "other" };
    default:
      throw new PgoutputFault(`no message begins with ${JSON.stringify(type)}`);
  }
}

function readRelation(reader: Reader): RelationMessage {
  const id = reader.int32();
  const schema = reader.text();
  const table = reader.text();
  reader.int8(); // Replica identity; the columns' flags say the same.
  const columns = reader.times(reader.int16(), 10, () => {
    const isKey = (reader.int8() & 1) === 1;
    const name = reader.text();
    reader.int32();
    reader.int32();
    return { name, isKey };
  });
  // PostgreSQL leaves it empty for its own schema.
  return { kind: "relation", id, schema: schema === "" ? "pg_catalog" : schema, table, columns };
}

function readRow(reader: Reader, type: "I" | "U" | "D"): RowMessage {
  const relation = reader.int32();
  const first = reader.letter();
  const hasOld = first === "K" || first === "O";
  if (type === "D" && !hasOld) throw new PgoutputFault("a deletion without its key");
  if (type === "I" && first !== "N") throw new PgoutputFault("an insertion without its row");
  const old = hasOld
    ? { holds: first === "K" ? ("key" as const) : ("row" as const), values: readTuple(reader) }
    : undefined;
  if (type === "D") return { kind: "delete", relation, old, new: undefined };
  if ((hasOld ? reader.letter() : first) !== "N") {
    throw new PgoutputFault("an update without its new row");
  }
  return { kind: type === "I" ? "insert" : "update", relation, old, new: readTuple(reader) };
}

function readTuple(reader: Reader): TupleValue[] {
  return reader.times(reader.int16(), 1, (): TupleValue => {
    const kind = reader.letter();
    if (kind === "n") return null;
    if (kind === "u") return undefined;
    if (kind === "t") return reader.sized();
    throw new PgoutputFault(`a value of kind ${JSON.stringify(kind)}`);
  });
}

/** Throws where the message is too short. */
class Reader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  #take(count: number): number {
    const from = this.#at;
    if (count < 0 || from + count > this.#bytes.length) {
      throw new PgoutputFault(
        `the message ends after ${this.#bytes.length} bytes, ${count} were to come at ${from}`,
      );
    }
    this.#at = from + count;
    return from;
  }

  int8(): number {
    return this.#bytes.readUInt8(this.#take(1));
  }
  int16(): number {
    return this.#bytes.readUInt16BE(this.#take(2));
  }
  int32(): number {
    return this.#bytes.readUInt32BE(this.#take(4));
  }
  int64(): bigint {
    return this.#bytes.readBigInt64BE(this.#take(8));
  }
  letter(): string {
    return String.fromCharCode(this.int8());
  }
  lsn(): string {
    const high = this.int32();
    return `${hex(high)}/${hex(this.int32())}`;
  }
  /** Up to its zero byte. */
  text(): string {
    const end = this.#bytes.indexOf(0, this.#at);
    if (end < 0) throw new PgoutputFault("a name that does not end");
    const from = this.#take(end - this.#at + 1);
    return this.#bytes.toString("utf8", from, end);
  }
  /** Its length, and so many bytes. */
  sized(): string {
    const length = this.int32();
    const from = this.#take(length);
    return this.#bytes.toString("utf8", from, from + length);
  }
  /** Each takes `bytesMin` at least: a count that cannot be true is refused before anything is made of it. */
  times<T>(count: number, bytesMin: number, read: () => T): T[] {
    if (count * bytesMin > this.#bytes.length - this.#at) {
      throw new PgoutputFault(`${count} parts were to come, and the message is too short for them`);
    }
    return Array.from({ length: count }, read);
  }
  expectEnd(): void {
    const left = this.#bytes.length - this.#at;
    if (left !== 0) throw new PgoutputFault(`${left} bytes are left behind a message`);
  }
}

const hex = (value: number): string => value.toString(16).toUpperCase();
