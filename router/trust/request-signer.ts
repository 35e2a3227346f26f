/**
 * Signs what a cell's gate goes by (`contract/request-signature.ts`). A signature is made once per
 * placement and used again for half of its life, so that most requests cost one look into a map.
 *
 * What must always be true: a signature is used for exactly the text it was made for (a new epoch is a
 * new text), with the key that signs now, and never in the second half of its life.
 */
import {
  requestText,
  type SignedRequest,
  signatureLifeMs,
  signatureText,
  signedText,
} from "../../contract/request-signature.ts";
import { createSigner, type Signer, signaturePurposes } from "../../runtime/signing.ts";
import type { OwnKey } from "./own-keys.ts";

/** Signatures kept: about 400 bytes each. Above it the oldest is made anew when it is needed. */
const keptMax = 65_536;
const reuseMs = signatureLifeMs / 2;

type Kept = { readonly value: string; readonly madeMs: number };

export class RequestSigner {
  readonly #nowMs: () => number;
  readonly #onSigned: () => void;
  /** Oldest first. */
  readonly #kept = new Map<string, Kept>();
  #signer: Signer | undefined;

  constructor(options: { readonly nowMs: () => number; readonly onSigned: () => void }) {
    this.#nowMs = options.nowMs;
    this.#onSigned = options.onSigned;
  }

  get keyId(): string | undefined {
    return this.#signer?.keyId;
  }

  use(key: OwnKey): void {
    if (key.id === this.#signer?.keyId) return;
    this.#signer = createSigner(key);
    this.#kept.clear();
  }

  /** The header's value; undefined while there is no key. */
  sign(request: SignedRequest): string | undefined {
    const text = requestText(request);
    const nowMs = this.#nowMs();
    const kept = this.#kept.get(text);
    // A clock that was set back would keep signatures that are valid for too long.
    const isFresh = kept !== undefined && nowMs >= kept.madeMs && nowMs - kept.madeMs < reuseMs;
    return isFresh ? kept.value : this.#make(text, nowMs);
  }

  #make(text: string, nowMs: number): string | undefined {
    const signer = this.#signer;
    if (signer === undefined) return undefined;
    const { keyId } = signer;
    const expiresSeconds = Math.floor((nowMs + signatureLifeMs) / 1000);
    const signed = signedText(keyId, expiresSeconds, text);
    const signature = signer.sign(signaturePurposes.request, signed);
    const value = signatureText({ keyId, expiresSeconds, signature });
    this.#kept.delete(text);
    if (this.#kept.size >= keptMax) {
      const [oldest] = this.#kept.keys();
      if (oldest !== undefined) this.#kept.delete(oldest);
    }
    this.#kept.set(text, { value, madeMs: nowMs });
    this.#onSigned();
    return value;
  }
}
