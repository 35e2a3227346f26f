/**
 * The keys by which cells know that a request came through a router of their fleet. A router makes its
 * key pair itself and announces the public half; the control plane puts it into the signed table.
 */
import { z } from "zod";
import { routerIdSchema } from "./ids.ts";

/** The one it signs with, and the one before or after it. */
export const announcedKeysMax = 2;
/** In one table; those of routers that called last come first. */
export const routerKeysMax = 2000;

/** `id` is the hash of the key itself (`runtime/signing.ts`), so that nobody can announce another's. */
export const announcedKeySchema = z.object({
  id: z.string().regex(/^[\w-]{16,64}$/),
  /** Base64 of the DER of an Ed25519 public key. */
  spki: z.string().max(100),
});
export type AnnouncedKey = z.infer<typeof announcedKeySchema>;

export const announcedKeysSchema = z.array(announcedKeySchema).max(announcedKeysMax);

export const routerKeySchema = announcedKeySchema.extend({ router: routerIdSchema });
export type RouterKey = z.infer<typeof routerKeySchema>;

export const routerKeysSchema = z.array(routerKeySchema).max(routerKeysMax);
