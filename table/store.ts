/**
 * The table that is served from. It is replaced as a whole or moved on by a delta, in one synchronous
 * step, and only forward: a table of another fleet or an older revision is refused.
 */
import { type DeltaBody, deltaBodySchema, type SignedDelta } from "../contract/routing-table.ts";
import type { TableState } from "../contract/table-state.ts";
import { signaturePurposes, type Verifier } from "../runtime/signing.ts";
import { parseJson } from "./parse-json.ts";

export type StoreRefusal = {
  readonly kind: "refused";
  readonly reason: "other-fleet" | "gap" | "invalid" | "drift" | "older" | "unsigned";
  readonly text: string;
};
const refused = (reason: StoreRefusal["reason"], text: string): StoreRefusal => ({
  kind: "refused",
  reason,
  text,
});

/** With the delta that made it, if it was one. */
export type TableChanged = (table: TableState, delta?: DeltaBody) => void;

export class TableStore {
  #table: TableState | undefined;
  readonly #onChange: TableChanged;

  /** `onChange` runs in the same turn as the change, after it is complete. */
  constructor(onChange: TableChanged) {
    this.#onChange = onChange;
  }

  readonly view = (): TableState | undefined => this.#table;

  /**
   * Takes a whole table of the control plane. The same revision is taken only with another checksum:
   * then ours has drifted.
   */
  replace(table: TableState, pinnedFleet: string | undefined): StoreRefusal | undefined {
    const now = this.#table;
    const fleet = now?.fleet ?? pinnedFleet;
    if (fleet !== undefined && fleet !== table.fleet) {
      return refused(
        "other-fleet",
        `the table is of fleet ${table.fleet}, this process serves ${fleet}`,
      );
    }
    if (now !== undefined && table.revision < now.revision) {
      return refused("older", `revision ${table.revision} is below ${now.revision}`);
    }
    if (table.revision === now?.revision && table.checksum === now.checksum) return undefined;
    this.#table = table;
    this.#onChange(table);
    return undefined;
  }

  /** Verified, checked, applied; or refused, and the table is as it was. */
  apply(delta: SignedDelta, verifier: Verifier): StoreRefusal | undefined {
    const table = this.#table;
    if (table === undefined) return refused("gap", "there is no table to apply a delta to");
    if (!verifier.verify(signaturePurposes.delta, delta.body, delta.keyId, delta.signature)) {
      return refused("unsigned", `no trusted key ${delta.keyId} has signed the delta`);
    }
    const body = deltaBodySchema.safeParse(parseJson(delta.body));
    if (!body.success) return refused("invalid", "the signed delta does not fit the contract");
    const problem = table.apply(body.data);
    if (problem !== undefined) return problem;
    this.#onChange(table, body.data);
    return undefined;
  }
}
