/**
 * Is a write certainly in a copy? A cell may have several stores, each with a log of its own: a write is
 * in the copy when in every store its position lies at or before the one that the copy had applied.
 *
 * What must always be true: a store whose position is not known on both sides is in doubt, and a position
 * is compared with one of the same store alone.
 */
import type { AckedWrite } from "../../../contract/cell-protocol.ts";
import { defaultService } from "../../../contract/service-route.ts";

/** Everything that the dead cell committed in this store up to here is applied; null: nobody knows. */
export type StorePosition = { readonly name: string; readonly remoteLsn: string | null };

export type Doubt = {
  readonly because: string;
  /** Of several stores those in doubt; empty: there is but one. */
  readonly stores: readonly string[];
  /** Nothing tells where it stands in any log: only its time does. */
  readonly isPlaceless: boolean;
};

/** `X/Y`, as PostgreSQL writes it; undefined: it is none. */
export function parseLsn(text: string | null | undefined): bigint | undefined {
  const parts = /^([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})$/.exec(text ?? "");
  if (parts === null) return undefined;
  return (BigInt(`0x${parts[1]}`) << 32n) | BigInt(`0x${parts[2]}`);
}

type Acked = Pick<AckedWrite, "lsn" | "lsns">;

/** Undefined: the copy has it. */
export function doubtOf(write: Acked, applied: readonly StorePosition[]): Doubt | undefined {
  if (applied.length === 0) {
    return { because: "the partner's position is not known", stores: [], isPlaceless: false };
  }
  const isOne = applied.length === 1;
  const doubts = applied.flatMap((store) => {
    const because = doubtIn(positionIn(write, store.name, isOne), store.remoteLsn);
    return because === undefined ? [] : [{ name: store.name, because }];
  });
  if (doubts.length === 0) return undefined;
  const [first] = doubts;
  const isPlaceless = doubts.every(({ because }) => because === placeless);
  if (isOne) return { because: first?.because ?? "", stores: [], isPlaceless };
  return {
    isPlaceless,
    because: doubts.map(({ name, because }) => `store ${name}: ${because}`).join("; "),
    stores: doubts.map(({ name }) => name),
  };
}

/** What an agent with one store tells is of that one, whatever it is called; else of the first. */
function positionIn({ lsn, lsns }: Acked, store: string, isOne: boolean): string | undefined {
  if (lsns !== undefined) return lsns[store];
  return isOne || store === defaultService ? lsn : undefined;
}

const placeless = "nobody knows its position in the cell's log";

function doubtIn(lsn: string | undefined, remoteLsn: string | null): string | undefined {
  const position = parseLsn(lsn);
  if (position === undefined) return placeless;
  const applied = parseLsn(remoteLsn);
  if (applied === undefined) return "the partner's position is not known";
  if (position <= applied) return undefined;
  return `acknowledged at ${lsn}, and the partner had ${remoteLsn}`;
}

/** As one text: `X/Y` of one store, else `NAME=X/Y, …`; null: of one of them nobody knows it. */
export function positionsText(stores: readonly StorePosition[]): string | null {
  if (stores.length === 0 || stores.some(({ remoteLsn }) => remoteLsn === null)) return null;
  const [first] = stores;
  if (stores.length === 1) return first?.remoteLsn ?? null;
  return stores.map(({ name, remoteLsn }) => `${name}=${remoteLsn}`).join(", ");
}

export function readPositions(text: string | null): readonly StorePosition[] {
  if (text === null) return [];
  if (!text.includes("=")) return [{ name: defaultService, remoteLsn: text }];
  return text.split(", ").map((part) => {
    const [name = "", remoteLsn = null] = part.split("=");
    return { name, remoteLsn };
  });
}
