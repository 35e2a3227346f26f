/** Pure: what several workers remember of one request, as one answer. */
import type {
  RememberedAnswer,
  RememberedKind,
  rememberedKinds,
} from "../../contract/remembered-request.ts";

/** As many as one worker tells of an id that a client gave to many requests. */
const answersMax = 20;

/** `answers` is not empty. A worker that is younger than the others knows nothing from before its time. */
export function togetherRemembered(
  first: RememberedAnswer,
  rest: readonly RememberedAnswer[],
): RememberedAnswer {
  const all = [first, ...rest];
  const items = all.flatMap((answer) => answer.items).sort((a, b) => (a.at < b.at ? 1 : -1));
  const startedAt = all.map((answer) => answer.startedAt).reduce(later);
  const span = (kind: RememberedKind) => {
    const spans = all.flatMap(({ remembers }) => remembers[kind] ?? []);
    const since = spans.map((one) => one.since).reduce(laterIfAny, null);
    const sum = (name: "kept" | "max") => spans.reduce((total, one) => total + one[name], 0);
    return { kept: sum("kept"), max: sum("max"), since };
  };
  const [failed, refused, sampled] = [span("failed"), span("refused"), span("sampled")];
  const remembers = { failed, refused, sampled } satisfies Record<
    (typeof rememberedKinds)[number],
    unknown
  >;
  return { router: first.router, startedAt, items: items.slice(0, answersMax), remembers };
}

const later = (a: string, b: string): string => (a > b ? a : b);
const laterIfAny = (a: string | null, b: string | null): string | null => {
  if (a === null || b === null) return a ?? b;
  return later(a, b);
};
