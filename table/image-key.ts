/**
 * The key that a router or agent seals its table image with: derived from its own token, which does not
 * lie in the state folder, so that whoever can write there cannot make up placements.
 */
import { hkdfSync } from "node:crypto";

export type ImageKey = {
  /** For HMAC-SHA256. */
  readonly secret: Buffer;
  /** 16 bytes that tell keys apart and say nothing about them. */
  readonly id: Buffer;
};

const derive = (token: string, purpose: string, bytes: number): Buffer =>
  Buffer.from(hkdfSync("sha256", token, "", `cellfleet table image ${purpose}`, bytes));

export const imageKeyOf = (token: string): ImageKey => ({
  secret: derive(token, "seal", 32),
  id: derive(token, "id", 16),
});
