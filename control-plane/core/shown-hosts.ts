/**
 * What people read names hosts, never annexes: an annex is part of the cell that it stands in (decision 56).
 * One pass over an answer of the API, the same for every answer, so that no headline, step or event of any
 * part of the control plane has to think of it. Pure.
 *
 * What must always be true: a name that stands for something else stays: commands that are to be typed, ids
 * of standbys, ids that the question itself named. What replaced an annex stands beside its host as an
 * extra member, so that a program loses nothing.
 */
import { isAnnexId } from "../../contract/annex.ts";

export type AnnexName = { readonly origin: string; readonly host: string };
/** By id, those of the past too: what is told of a move that is over names them still. */
export type AnnexNames = ReadonlyMap<string, AnnexName>;

/** Cheap: is there anything to replace? */
export const mayNameAnnexes = (json: string): boolean => json.includes("sb-");

/** `cell-03 (standby of cell-01)`; every other text as it is. */
export const shownText = (text: string, names: AnnexNames): string =>
  text
    .replace(annexInProse, (id) => {
      const known = names.get(id);
      return known === undefined ? id : `${known.host} (standby of ${known.origin})`;
    })
    .replace(oneAfterTheOther, "$1");

/** A host may keep two standbys of a cell: in a list it is named once. */
const oneAfterTheOther = /([a-z0-9-]+ \(standby of [a-z0-9-]+\))(?:, \1)+/g;

/** Not in a command, which is typed as it stands. */
const annexInProse = /(?<!cellctl [^()`;,]{0,80})(?<![\w/.-])sb-[a-z0-9-]*[a-z0-9]/g;

export function shownHosts(value: unknown, names: AnnexNames): unknown {
  if (typeof value === "string") return /\s/.test(value) ? shownText(value, names) : value;
  if (Array.isArray(value)) return value.map((item: unknown) => shownHosts(item, names));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).flatMap(([name, member]: [string, unknown]) =>
      shownMember(name, member, names),
    ),
  );
}

type Member = readonly [string, unknown];

function shownMember(name: string, member: unknown, names: AnnexNames): readonly Member[] {
  if (typeof member !== "string" || !isAnnexId(member)) {
    return [[name, shownHosts(member, names)]];
  }
  const known = names.get(member);
  if (known === undefined) return [[name, shownHosts(member, names)]];
  const { origin, host } = known;
  switch (name) {
    case "cell":
      return [
        [name, host],
        ["annex", member],
      ];
    case "source":
    case "target":
      return [
        [name, host],
        [`${name}Annex`, { id: member, origin }],
      ];
    case "object":
      return [
        [name, member],
        ["standby", { origin, host }],
      ];
    default:
      return [[name, member]];
  }
}
