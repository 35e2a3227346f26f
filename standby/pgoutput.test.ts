/** Messages of pgoutput, whole, cut short and made up. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { PgoutputFault, type PgoutputMessage, parsePgoutput } from "./pgoutput.ts";
import { createSalvagedRows } from "./salvaged-rows.ts";

const int16 = (value: number) => Buffer.from([value >> 8, value & 255]);
function int32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}
function int64(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64BE(value);
  return bytes;
}
const name = (text: string) => Buffer.from(`${text}\0`);
const letter = (text: string) => Buffer.from(text);
const value = (text: string | null | undefined): Buffer => {
  if (text === null) return letter("n");
  if (text === undefined) return letter("u");
  return Buffer.concat([letter("t"), int32(Buffer.byteLength(text)), letter(text)]);
};
const tuple = (...values: ReadonlyArray<string | null | undefined>): Buffer =>
  Buffer.concat([int16(values.length), ...values.map(value)]);
const column = (isKey: boolean, text: string): Buffer =>
  Buffer.concat([Buffer.from([isKey ? 1 : 0]), name(text), int32(25), int32(0xffffffff)]);

/** 2026-06-01T12:00:00.123Z, in microseconds from 2000-01-01. */
const committed = BigInt(Date.UTC(2026, 5, 1, 12, 0, 0, 123) - Date.UTC(2000, 0, 1)) * 1000n;
const begin = Buffer.concat([letter("B"), int64(0x1_0a2b3c4dn), int64(committed), int32(777)]);
const commit = Buffer.concat([
  ...[letter("C"), Buffer.from([0]), int64(0x1_0a2b3c4dn), int64(0x1_0a2b3c7dn), int64(committed)],
]);
const relation = Buffer.concat([
  ...[letter("R"), int32(16_400), name("public"), name("notes"), letter("d"), int16(3)],
  ...[column(true, "tenant_id"), column(true, "id"), column(false, "body")],
]);
const insert = Buffer.concat([letter("I"), int32(16_400), letter("N"), tuple("acme", "1", "grüß")]);
const update = Buffer.concat([
  ...[letter("U"), int32(16_400), letter("N"), tuple("acme", "1", undefined)],
]);
const renamed = Buffer.concat([
  ...[letter("U"), int32(16_400), letter("K"), tuple("acme", "1", null)],
  ...[letter("N"), tuple("acme", "2", "x")],
]);
const remove = Buffer.concat([letter("D"), int32(16_400), letter("K"), tuple("acme", "2", null)]);
const truncate = Buffer.concat([letter("T"), int32(1), Buffer.from([0]), int32(16_400)]);
const all = { begin, commit, relation, insert, update, renamed, remove, truncate };

describe("messages", () => {
  test("are read", () => {
    expect(parsePgoutput(begin)).toMatchObject({ kind: "begin", lsn: "1/A2B3C4D" });
    expect(parsePgoutput(commit)).toEqual({
      ...{ kind: "commit", lsn: "1/A2B3C4D", endLsn: "1/A2B3C7D" },
    });
    expect(parsePgoutput(relation)).toMatchObject({ schema: "public", table: "notes" });
    expect(parsePgoutput(insert)).toMatchObject({ new: ["acme", "1", "grüß"], old: undefined });
    expect(parsePgoutput(update)).toMatchObject({ new: ["acme", "1", undefined] });
    expect(parsePgoutput(renamed)).toMatchObject({
      old: { holds: "key" },
      new: ["acme", "2", "x"],
    });
    expect(parsePgoutput(remove)).toMatchObject({ kind: "delete", new: undefined });
    expect(parsePgoutput(truncate)).toEqual({ kind: "truncate", relations: [16_400] });
    expect(parsePgoutput(letter("Oanything"))).toEqual({ kind: "other" });
  });

  test.each(Object.entries(all))(
    "%s, cut short anywhere or too long, is refused",
    (_name, bytes) => {
      for (let length = 0; length < bytes.length; length += 1) {
        expect(() => parsePgoutput(bytes.subarray(0, length))).toThrow(PgoutputFault);
      }
      expect(() => parsePgoutput(Buffer.concat([bytes, Buffer.from([0])]))).toThrow(PgoutputFault);
    },
  );

  test("whatever comes, it is a message or a fault", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(..."BCRIUDTOYMx"),
        fc.uint8Array({ maxLength: 60 }),
        (type, rest) => {
          try {
            parsePgoutput(Buffer.concat([letter(type), rest]));
          } catch (error) {
            expect(error).toBeInstanceOf(PgoutputFault);
          }
        },
      ),
    );
  });

  test("a count that cannot be true makes nothing", () => {
    const tooMany = Buffer.concat([letter("T"), int32(0xffffffff), Buffer.from([0]), int32(1)]);
    expect(() => parsePgoutput(tooMany)).toThrow(/too short/);
  });
});

describe("rows", () => {
  const run = (...messages: readonly Buffer[]) => {
    const rows = createSalvagedRows(
      "main",
      new Map([["public.notes", { column: "tenant_id", keyspace: "default" }]]),
    );
    return messages.flatMap((bytes) => rows(parsePgoutput(bytes)) ?? []);
  };

  test("are told with tenant, key and commit", () => {
    const at = {
      ...{ store: "main", table: "public.notes", keyspace: "default", tenant: "acme" },
      ...{ lsn: "1/A2B3C4D", committedAt: "2026-06-01T12:00:00.123Z" },
    };
    expect(run(begin, relation, insert, update, renamed, remove, commit)).toEqual([
      {
        ...{ ...at, kind: "insert", key: { tenant_id: "acme", id: "1" } },
        row: { tenant_id: "acme", id: "1", body: "grüß" },
      },
      {
        ...{ ...at, kind: "update", key: { tenant_id: "acme", id: "1" } },
        row: { tenant_id: "acme", id: "1" },
      },
      {
        ...{ ...at, kind: "update", key: { tenant_id: "acme", id: "1" } },
        row: { tenant_id: "acme", id: "2", body: "x" },
      },
      { ...at, kind: "delete", key: { tenant_id: "acme", id: "2" }, row: null },
    ]);
  });

  test("of a table that was not named, or of another form than it, are a fault", () => {
    expect(() => run(begin, insert)).toThrow(PgoutputFault);
    expect(() => run(relation, insert)).toThrow(PgoutputFault);
    const short = Buffer.concat([letter("I"), int32(16_400), letter("N"), tuple("acme", "1")]);
    expect(() => run(begin, relation, short)).toThrow(/2 values for 3 columns/);
  });

  test("of the pack's own tables are nobody's", () => {
    const own = Buffer.concat([
      ...[letter("R"), int32(1), name("cellfleet"), name("heartbeat"), letter("d"), int16(1)],
      column(true, "origin"),
    ]);
    const beat = Buffer.concat([letter("I"), int32(1), letter("N"), tuple("cell-a")]);
    expect(run(begin, own, beat)).toEqual([]);
  });
});

test("every kind of message is met above", () => {
  const kinds: ReadonlyArray<PgoutputMessage["kind"]> = Object.values(all).map(
    (bytes) => parsePgoutput(bytes).kind,
  );
  expect(new Set(kinds).size).toBe(7);
});
