/** Pure: what a soak found, as lines of problems; none is good. */
import type { Sample } from "./router-process.ts";

export type Rest = {
  readonly sample: Sample;
  /** MiB in use after a collection, by thread. */
  readonly heaps: readonly number[];
  readonly objects: ReadonlyMap<string, number>;
  /** Gauges that are not at zero although nobody is there any more. */
  readonly left: readonly string[];
};

export type Soaked = {
  readonly faults: readonly string[];
  readonly troubles: readonly string[];
  readonly exit: number | null;
  readonly idle: Sample;
  /** After the load that warms up, and after the load that counts. */
  readonly rests: readonly [Rest, Rest];
  /** Under the load that counts. */
  readonly samples: readonly Sample[];
  readonly heapsUnderLoad: readonly number[];
};

const shownMax = 20;
/** What stays in use between two rests: caches that fill, nothing that follows the number of requests. */
const heapGrowthMiB = 6;
const objectsGrowth = 250;
/** Of the same load: second quarter against the last. */
const growthMax = 1.2;
const growthMiB = 24;
/** Sockets to cells that undici keeps. */
const filesMore = 8;
/** Plain values, which caches of a bounded size hold; the heap in MiB judges them. */
const plain = /^(Object|Array|\(.*|Object \/ .*|system \/ .*)$/;

export function problemsOf(soaked: Soaked): readonly string[] {
  const { faults, troubles, exit, idle, rests, samples, heapsUnderLoad } = soaked;
  const [before, after] = rests;
  const rss = quarters(samples.map(({ rssMiB }) => rssMiB));
  const heap = quarters(heapsUnderLoad);
  const used = [sum(before.heaps), sum(after.heaps)] as const;
  return [
    ...faults.slice(0, shownMax),
    ...(faults.length > shownMax ? [`${faults.length} faults in all`] : []),
    ...troubles.slice(0, shownMax),
    ...rests.flatMap(({ left }) => left.map((one) => `not given back: ${one}`)),
    ...rests
      .filter(({ sample }) => sample.files > idle.files + filesMore)
      .map(({ sample }) => `files: ${idle.files} before the load, ${sample.files} after it`),
    ...(used[1] > used[0] + heapGrowthMiB * before.heaps.length
      ? [`the heap grows: ${used[0]} MiB at the first rest, ${used[1]} MiB at the second`]
      : []),
    ...grownObjects(before.objects, after.objects),
    ...(grows(rss) ? [`memory grows under load: ${rss.join(" → ")} MiB`] : []),
    ...(grows(heap) ? [`the heap grows under load: ${heap.join(" → ")} MiB`] : []),
    ...(exit === 0 ? [] : [`the router's exit code is ${exit}`]),
  ];
}

const sum = (list: readonly number[]): number =>
  Math.round(list.reduce((all, one) => all + one, 0) * 10) / 10;

function grownObjects(
  before: ReadonlyMap<string, number>,
  after: ReadonlyMap<string, number>,
): string[] {
  return [...after]
    .filter(([name]) => !plain.test(name))
    .map(([name, count]) => [name, before.get(name) ?? 0, count] as const)
    .filter(([, was, is]) => is > was + objectsGrowth)
    .map(([name, was, is]) => `${name}: ${was} at the first rest, ${is} at the second`);
}

/** The middle of the second quarter and that of the last. */
export function quarters(list: readonly number[]): readonly [number, number] {
  const quarter = Math.floor(list.length / 4);
  if (quarter === 0) return [middle(list), middle(list)];
  return [middle(list.slice(quarter, quarter * 2)), middle(list.slice(-quarter))];
}

const grows = ([early, late]: readonly [number, number]): boolean =>
  late > early * growthMax && late > early + growthMiB;

const middle = (list: readonly number[]): number =>
  [...list].sort((a, b) => a - b)[list.length >> 1] ?? 0;
