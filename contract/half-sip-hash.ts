/**
 * HalfSipHash-1-3 (J.-P. Aumasson, D. J. Bernstein) over the characters of a text: a keyed hash, so that
 * nobody who chooses ids can make them collide.
 *
 * Written out instead of looped, and without a closure: it runs on every request.
 */

/** Two 32-bit words. */
export type HashKey = readonly [number, number];

/** 32 bits. A character beyond 255 runs into its neighbours, which makes a hash no worse. */
export function tagOf(key: HashKey, text: string): number {
  const k0 = key[0] | 0;
  const k1 = key[1] | 0;
  const length = text.length;
  let v0 = k0;
  let v1 = k1;
  let v2 = 0x6c796765 ^ k0;
  let v3 = 0x74656462 ^ k1;
  let word = 0;
  // One word per turn, the last one with what is left and the length; then three turns of finish.
  const words = (length >>> 2) + 1;
  for (let turn = 0; turn < words + 3; turn += 1) {
    if (turn < words) {
      word = wordAt(text, turn * 4, length);
      v3 ^= word;
    } else if (turn === words) v2 ^= 0xff;
    v0 = (v0 + v1) | 0;
    v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
    v0 = (v0 << 16) | (v0 >>> 16);
    v2 = (v2 + v3) | 0;
    v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
    v0 = (v0 + v3) | 0;
    v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
    v2 = (v2 + v1) | 0;
    v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
    v2 = (v2 << 16) | (v2 >>> 16);
    if (turn < words) v0 ^= word;
  }
  return (v1 ^ v3) >>> 0;
}

function wordAt(text: string, at: number, length: number): number {
  if (at + 4 <= length) {
    return (
      text.charCodeAt(at) |
      (text.charCodeAt(at + 1) << 8) |
      (text.charCodeAt(at + 2) << 16) |
      (text.charCodeAt(at + 3) << 24)
    );
  }
  let last = length << 24;
  if (at < length) last |= text.charCodeAt(at);
  if (at + 1 < length) last |= text.charCodeAt(at + 1) << 8;
  if (at + 2 < length) last |= text.charCodeAt(at + 2) << 16;
  return last;
}
