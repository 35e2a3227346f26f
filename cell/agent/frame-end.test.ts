/** Our close frame stands behind a whole frame, wherever the bytes are cut. */
import { expect, test } from "vitest";
import { FrameEnd } from "./frame-end.ts";

const restart = Buffer.from([0x88, 2, 0x03, 0xf4]);

/** Of an application, unless a mask is asked for. */
function frame(size: number, mask = false): Buffer {
  const flag = mask ? 0x80 : 0;
  const head =
    size < 126
      ? [0x82, flag | size]
      : size < 65_536
        ? [0x82, flag | 126, size >> 8, size & 0xff]
        : [0x82, flag | 127, 0, 0, 0, 0, 0, size >> 16, (size >> 8) & 0xff, size & 0xff];
  return Buffer.concat([
    Buffer.from(head),
    Buffer.alloc(mask ? 4 : 0, 7),
    Buffer.alloc(size, 0x88),
  ]);
}

function collect(end: FrameEnd): () => Buffer {
  const parts: Buffer[] = [];
  end.on("data", (part: Buffer) => parts.push(part));
  return () => Buffer.concat(parts);
}
const write = (end: FrameEnd, bytes: Buffer): Promise<void> =>
  new Promise((resolve) => {
    end.write(bytes, () => resolve());
  });

const sizes = [0, 1, 125, 126, 127, 65_535, 65_536, 70_000];
const frames = [...sizes.map((size) => frame(size)), frame(5, true), frame(300, true)];

test.each([1, 2, 3, 7, 1000, 1_000_000])(
  "in pieces of %i bytes, asked at any piece",
  async (size) => {
    const all = Buffer.concat(frames);
    const ends = new Set<number>([0]);
    let length = 0;
    for (const one of frames) {
      length += one.length;
      ends.add(length);
    }
    const askedAt = [0, 1, 5, 130, 260, 520, 131_000, all.length - 3].filter(
      (at) => at < all.length,
    );
    for (const asked of askedAt) {
      const end = new FrameEnd();
      const told = collect(end);
      let said = 0;
      for (let at = 0; at < all.length; at += size) {
        if (said === 0 && at <= asked && asked < at + size) end.sayRestart(() => (said += 1));
        await write(end, all.subarray(at, at + size));
        if (said > 0) break;
      }
      await write(end, Buffer.from("nothing follows"));
      expect(said).toBe(1);
      const out = told();
      const before = out.length - restart.length;
      expect(out.subarray(before)).toEqual(restart);
      expect(out.subarray(0, before).equals(all.subarray(0, before))).toBe(true);
      expect(ends.has(before)).toBe(true);
    }
  },
);

test("between frames at once; what is no WebSocket passes as it is and is never interrupted", async () => {
  const idle = new FrameEnd();
  const told = collect(idle);
  let said = false;
  idle.sayRestart(() => {
    said = true;
  });
  await new Promise(setImmediate);
  expect([said, told()]).toEqual([true, restart]);

  const other = new FrameEnd();
  const text = collect(other);
  await write(other, Buffer.from("first,"));
  other.sayRestart(() => expect.unreachable());
  await write(other, Buffer.from("second"));
  expect(text().toString()).toBe("first,second");
});
