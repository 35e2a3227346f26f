/** An event stream ends behind an event, wherever its bytes are cut. */
import { expect, test } from "vitest";
import { must } from "../assert.ts";
import { eventEndOf } from "./event-end.ts";

const plain = ["content-type", "text/event-stream"];
const open = (headers: readonly string[] = plain) => must(eventEndOf(headers), "an event stream");

test("only what is one by its type", () => {
  expect(eventEndOf(["content-type", "Text/Event-Stream; charset=utf-8"])).toBeDefined();
  expect(eventEndOf(["content-type", "application/json"])).toBeUndefined();
});

const events = [
  "data: one",
  "",
  "id: 2",
  "data: two",
  "",
  ": a comment",
  "",
  "data: three",
  "",
  "",
];

/** What is sent when the end is asked for after so many bytes, which come in pieces. */
function sentOf(bytes: Buffer, asked: number, size: number): string {
  const end = open();
  let sent = "";
  const read = (from: number, to: number) => {
    for (let at = from; at < to && !end.isOver; at += size) {
      sent += end.read(bytes.subarray(at, Math.min(at + size, to))).toString();
    }
  };
  read(0, asked);
  if (!end.want()) read(asked, bytes.length);
  expect([end.isOver, end.lastWords]).toEqual([true, "retry: 500\n\n"]);
  return sent;
}

test.each(["\n", "\r\n", "\r"])("with lines that end in %j, asked at any byte", (eol) => {
  const text = events.join(eol);
  // A CR ends its line, also where an LF would follow.
  const ends = [...text.matchAll(/(?<=\n\n|\r\n\r|\r\r|^)/g)].map(({ index }) => index);
  expect(ends).toHaveLength(5);
  for (let asked = 0; asked < text.length; asked += 1) {
    for (const size of [1, 3, 1000]) {
      const sent = sentOf(Buffer.from(text), asked, size);
      expect(text.startsWith(sent)).toBe(true);
      expect(ends).toContain(sent.endsWith("\r\n") ? sent.length - 1 : sent.length);
    }
  }
});

test("asked again it ends inside an event, and says nothing there; nor where nothing can be added", () => {
  const end = open();
  end.read(Buffer.from("data: o"));
  expect([end.want(), end.isOver]).toEqual([false, false]);
  expect([end.want(), end.isOver, end.lastWords]).toEqual([true, true, ""]);
  expect(end.read(Buffer.from("ne\n\n")).length).toBe(0);
  expect(open([...plain, "content-encoding", "br"]).lastWords).toBe("");
});
