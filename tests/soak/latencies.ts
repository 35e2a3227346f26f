/** Pure: times of many requests in constant memory, to a tenth of a millisecond. */
export type Latencies = {
  readonly note: (ms: number) => void;
  /** The time that this part of all requests did not exceed. */
  readonly at: (part: number) => number;
  readonly max: () => number;
};

const perMs = 10;
const longestMs = 60_000;

export function createLatencies(): Latencies {
  const counts = new Uint32Array(longestMs * perMs + 1);
  let total = 0;
  let max = 0;
  return {
    note: (ms) => {
      const at = Math.min(counts.length - 1, Math.max(0, Math.round(ms * perMs)));
      counts[at] = (counts[at] ?? 0) + 1;
      total += 1;
      max = Math.max(max, ms);
    },
    at: (part) => {
      let left = Math.ceil(total * part);
      for (let at = 0; at < counts.length; at += 1) {
        left -= counts[at] ?? 0;
        if (left <= 0) return at / perMs;
      }
      return longestMs;
    },
    max: () => Math.round(max),
  };
}
