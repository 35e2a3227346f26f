/**
 * Of the keys that may have brought an adopter down, those that routers saw nothing go wrong for are spared: a
 * key that nobody asked for brings nothing down, nor does one whose requests all came to a good end.
 *
 * What must always be true: whoever did it stays among the suspects, however much more is seen of others. How
 * often says nothing: somebody who has a hundred requests open loses a hundred when a single one of another
 * brings the process down.
 */

/** What routers saw of one key's requests at a cell in the last while. */
export type KeyMark = {
  readonly key: string;
  /** The exchange was cut off, or never came to an end. */
  readonly open: number;
  /** The application answered them with a failure of its own. */
  readonly failed: number;
};

export type AnnexMarks = {
  readonly marks: readonly KeyMark[];
  /** A router could not name everybody. */
  readonly partial: boolean;
};

export type Suspect = {
  readonly key: string;
  /** What speaks against this one and not the others; empty: that it came in time. */
  readonly because: string;
};

/** `serverWent`: its database fell, and an application that stays has answered the request that did it. */
export function narrow(
  keys: readonly string[],
  seen: AnnexMarks | undefined,
  serverWent: boolean,
): readonly Suspect[] {
  const may = new Set(keys);
  const own = (seen?.marks ?? []).filter(({ key }) => may.has(key));
  const cutOff = own.filter(({ open }) => open > 0);
  const against = serverWent || cutOff.length === 0 ? own : cutOff;
  const texts = new Map(own.map((mark) => [mark.key, markText(mark)]));
  // Nothing is known that would speak for anybody.
  const isUnknown = against.length === 0 || seen?.partial === true;
  const suspects = isUnknown ? keys : against.map(({ key }) => key);
  return suspects.map((key) => ({ key, because: texts.get(key) ?? "" }));
}

function markText({ open, failed }: KeyMark): string {
  const cut = open === 0 ? [] : [`${open} of its requests were cut off`];
  const bad = failed === 0 ? [] : [`${failed} were answered with a failure`];
  return [...cut, ...bad].join(", ");
}
