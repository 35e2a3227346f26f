/**
 * Rule 5 of the checker: every register of a tenant behaves as one register that is changed by compare and
 * set (Wing and Gong's search with Lowe's memory of what was tried; registers are independent of each
 * other, so each is judged by itself).
 *
 * Every answered operation must have taken effect at one moment between its beginning and its answer; one
 * of unknown outcome at any moment after its beginning, or never. Two things keep the search small, and
 * change no verdict: an operation that changes nothing and fits what the register is now is taken at once,
 * and an unknown swap is tried only where it would take effect. Beyond `stepsMax` the verdict is
 * `undecided`, which is not green.
 */

export type RegisterOp = {
  readonly beganAt: number;
  /** Infinity: never answered. */
  readonly endedAt: number;
  /** Undefined: a look. */
  readonly swap: { readonly expected: string | null; readonly value: string } | undefined;
  /** Undefined: not known. */
  readonly found: string | null | undefined;
  readonly process: string;
};

export type RegisterVerdict =
  | { readonly kind: "linearizable" }
  | { readonly kind: "undecided"; readonly steps: number }
  /** No order explains more than `explained` answers; `stuck` is the one that should have come next. */
  | {
      readonly kind: "violated";
      readonly explained: number;
      readonly answered: number;
      readonly stuck: RegisterOp;
    };

type Config = {
  readonly state: string | null;
  /** All answered operations before this index have taken effect. */
  readonly front: number;
  /** Those after it that have, ascending. */
  readonly ahead: readonly number[];
  /** Unknown operations that have. */
  readonly used: readonly number[];
};

const defaultStepsMax = 200_000;

export function judgeRegister(
  all: readonly RegisterOp[],
  stepsMax: number = defaultStepsMax,
): RegisterVerdict {
  const answered = all
    .filter(({ found }) => found !== undefined)
    .toSorted((a, b) => a.beganAt - b.beganAt);
  const unknown = all.filter(({ found, swap }) => found === undefined && swap !== undefined);
  const tried = new Set<string>();
  const stack: Config[] = [{ state: null, front: 0, ahead: [], used: [] }];
  let best = { explained: -1, stuck: answered[0] };
  for (let config = stack.pop(); config !== undefined; config = stack.pop()) {
    const next = settle(answered, config);
    if (next.front === answered.length) return { kind: "linearizable" };
    const explained = next.front + next.ahead.length;
    if (explained > best.explained) best = { explained, stuck: answered[next.front] };
    const key = keyOf(next);
    if (tried.has(key)) continue;
    if (tried.size >= stepsMax) return { kind: "undecided", steps: stepsMax };
    tried.add(key);
    stack.push(...follow(answered, unknown, next));
  }
  const { explained, stuck } = best;
  if (stuck === undefined) return { kind: "linearizable" };
  return { kind: "violated", explained, answered: answered.length, stuck };
}

const keyOf = ({ state, front, ahead, used }: Config): string =>
  `${front}|${ahead.join(" ")}|${used.join(" ")}|${state === null ? "" : `=${state}`}`;

/** Takes at once whatever changes nothing and fits. */
function settle(answered: readonly RegisterOp[], config: Config): Config {
  const { state } = config;
  let { front } = config;
  const ahead = new Set(config.ahead);
  const horizonOf = () => horizon(answered, front, ahead);
  let bound = horizonOf();
  for (let index = front; index < answered.length; index += 1) {
    const op = answered[index];
    if (op === undefined || op.beganAt > bound) break;
    if (ahead.has(index) || changes(op) || op.found !== state) continue;
    ahead.add(index);
    while (ahead.delete(front)) front += 1;
    // With it out of the way others may begin before the next answer: look again from there.
    bound = horizonOf();
    index = front - 1;
  }
  return { ...config, front, ahead: [...ahead].toSorted((a, b) => a - b) };
}

const changes = ({ swap, found }: RegisterOp): boolean =>
  swap !== undefined && swap.expected === found;

/** Nothing that began after this may come next: an operation that ended by then has not taken effect. */
function horizon(answered: readonly RegisterOp[], front: number, ahead: Set<number>): number {
  let least = Infinity;
  for (let index = front; index < answered.length; index += 1) {
    const op = answered[index];
    if (op === undefined || op.beganAt > least) break;
    if (!ahead.has(index)) least = Math.min(least, op.endedAt);
  }
  return least;
}

function follow(
  answered: readonly RegisterOp[],
  unknown: readonly RegisterOp[],
  config: Config,
): Config[] {
  const { state, front, ahead, used } = config;
  const taken = new Set(ahead);
  const bound = horizon(answered, front, taken);
  const configs: Config[] = [];
  for (const [index, { beganAt, swap }] of unknown.entries()) {
    if (swap === undefined || swap.expected !== state || swap.value === state) continue;
    if (beganAt > bound || used.includes(index)) continue;
    configs.push({ ...config, state: swap.value, used: insert(used, index) });
  }
  for (let index = front; index < answered.length; index += 1) {
    const op = answered[index];
    if (op === undefined || op.beganAt > bound) break;
    if (taken.has(index) || op.swap === undefined || !changes(op) || op.found !== state) continue;
    configs.push(advance(config, index, op.swap.value));
  }
  return configs;
}

function advance(config: Config, index: number, state: string): Config {
  const ahead = new Set(insert(config.ahead, index));
  let { front } = config;
  while (ahead.delete(front)) front += 1;
  return { ...config, state, front, ahead: [...ahead] };
}

const insert = (sorted: readonly number[], value: number): number[] =>
  [...sorted, value].toSorted((a, b) => a - b);
