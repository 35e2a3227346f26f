/**
 * The way from an application to the client of a WebSocket, which can be ended with a close frame of our
 * own: 1012, Service Restart (RFC 6455 section 7.4.1), upon which clients connect again.
 *
 * Always true: our frame stands between two frames of the application, never inside one; after it nothing
 * follows. Only heads of frames are read (section 5.2); what is no WebSocket never comes to such a place.
 */
import { Transform, type TransformCallback } from "node:stream";

/** FIN, opcode close; two bytes follow: 1012. */
const restartFrame = Buffer.from([0x88, 2, 1012 >> 8, 1012 & 0xff]);

export class FrameEnd extends Transform {
  readonly #scan = new FrameScan();
  #onSaid: (() => void) | undefined;
  #said: boolean = false;

  /** `onSaid`: the frame is on its way. It comes at the next end of a frame, which may be never. */
  sayRestart(onSaid: () => void): void {
    if (this.#onSaid !== undefined) return;
    this.#onSaid = onSaid;
    if (this.#scan.isBetween) this.#say();
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    if (this.#said) {
      done();
      return;
    }
    const whole = this.#scan.read(chunk, this.#onSaid !== undefined);
    this.push(chunk.subarray(0, whole));
    if (this.#onSaid !== undefined && this.#scan.isBetween) this.#say();
    done();
  }

  #say(): void {
    this.#said = true;
    this.push(restartFrame);
    this.#onSaid?.();
  }
}

/** Where frames begin and end. */
class FrameScan {
  /** Of the head: at most 2, 8 for the length, 4 for the mask. */
  readonly #head: number[] = [];
  #payloadLeft = 0;

  get isBetween(): boolean {
    return this.#head.length === 0 && this.#payloadLeft === 0;
  }

  /** How many bytes were read: all, or up to the first end of a frame. */
  read(chunk: Buffer, stopBetween: boolean): number {
    let at = 0;
    while (at < chunk.length) {
      if (this.#payloadLeft > 0) {
        const taken = Math.min(this.#payloadLeft, chunk.length - at);
        this.#payloadLeft -= taken;
        at += taken;
      } else {
        this.#head.push(chunk[at] ?? 0);
        at += 1;
        this.#readHead();
      }
      if (stopBetween && this.isBetween) return at;
    }
    return at;
  }

  #readHead(): void {
    const [, second = 0] = this.#head;
    const short = second & 0x7f;
    const lengthBytes = short === 126 ? 2 : short === 127 ? 8 : 0;
    const size = 2 + lengthBytes + ((second & 0x80) === 0 ? 0 : 4);
    if (this.#head.length < 2 || this.#head.length < size) return;
    const long = this.#head.slice(2, 2 + lengthBytes);
    this.#payloadLeft =
      lengthBytes === 0 ? short : long.reduce((length, byte) => length * 256 + byte, 0);
    this.#head.length = 0;
  }
}
