import fc from "fast-check";
import { expect, test } from "vitest";
import { cellIdSchema, defaultKeyspace, parseTenantId } from "../../contract/ids.ts";
import { must } from "../../runtime/assert.ts";
import { RequestRecord } from "./record.ts";

const text = fc.oneof(
  fc.string({ unit: "binary" }),
  fc.string(),
  fc.constantFrom('"', "\\", "\u2028", "\ud800", "\u0000\n", "a\u00e9"),
);
const ms = fc.oneof(fc.double({ min: 0, max: 1e7, noNaN: true }), fc.constantFrom(0, 1, 0.005));

test("the line of a request is the JSON of its fields, whatever stands in them", () => {
  fc.assert(
    fc.property(
      fc.array(text, { minLength: 8, maxLength: 8 }),
      ms,
      fc.boolean(),
      (texts, wait, full) => {
        const [requestId = "", method = "", target = "", proto = "", peer = "", ...rest] = texts;
        const trace = { traceId: "0".repeat(32), spanId: "1".repeat(16) };
        const record = new RequestRecord({
          startedMs: 10,
          trace: { ...trace, requestId, parentId: undefined, flags: "00", continued: false },
          ...{ method, target, proto, peer },
        });
        record.times = { queueMs: wait, connectMs: wait / 3, firstByteMs: wait / 7 };
        if (full) {
          const [source = "", upstream = "", flag = ""] = rest;
          record.identity = {
            ...{ kind: "tenant", keyspace: defaultKeyspace, path: target },
            ...{ tenant: must(parseTenantId("acme"), "tenant"), source },
          };
          record.cell = cellIdSchema.parse("cell-01");
          record.errorCode = "CELL_TIMEOUT";
          Object.assign(record, { upstream, flag, status: 504, attempt: 2, forwardedMs: 11 });
        }
        const endedMs = 10 + wait;
        const line: unknown = JSON.parse(`{${record.line(endedMs)}}`);
        expect(line).toEqual(JSON.parse(JSON.stringify(record.fields(endedMs))));
      },
    ),
  );
});
