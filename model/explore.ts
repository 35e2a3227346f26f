/**
 * Looks at every state that a model can reach, breadth first, so that a counterexample is a shortest one.
 *
 * A state is plain data. Two states are the same if their texts are, after `canonical` has chosen one of
 * those that differ only in the names of interchangeable parts. In the end every state must still have a
 * way to one that `isServed`: a state without is a deadlock, whatever moves around in it.
 */

export type Step<State> = { readonly label: string; readonly state: State };

export type Model<State> = {
  readonly initial: State;
  readonly next: (state: State) => readonly Step<State>[];
  /** One sentence about what must never be, or undefined. */
  readonly broken: (state: State) => string | undefined;
  /** The same of a step: what must never happen from one state to the next. */
  readonly brokenStep?: (before: State, after: State) => string | undefined;
  readonly isServed: (state: State) => boolean;
  readonly canonical?: (state: State) => State;
};

type Counterexample = {
  readonly text: string;
  /** What happened, in order, from the initial state. */
  readonly trace: readonly string[];
  readonly state: unknown;
};

export type Exploration =
  | {
      readonly kind: "holds";
      readonly states: number;
      readonly steps: number;
      readonly depth: number;
    }
  | ({ readonly kind: "broken" | "stuck"; readonly states: number } & Counterexample)
  /** Nobody knows: more states than allowed. */
  | { readonly kind: "too-large"; readonly states: number };

type Seen = { readonly parent: number; readonly label: string; readonly depth: number };

// biome-ignore lint/complexity/noExcessiveCognitiveComplexity: one list of all that may happen, read from top to bottom
export function explore<State>(model: Model<State>, statesMax: number): Exploration {
  const { canonical = (state: State) => state } = model;
  const index = new Map<string, number>();
  const seen: Seen[] = [];
  const served: boolean[] = [];
  const parents: number[][] = [];
  let queue: State[] = [];
  let steps = 0;

  const traceOf = (from: number): string[] => {
    const trace: string[] = [];
    for (let at = seen[from]; at !== undefined && at.parent >= 0; at = seen[at.parent]) {
      trace.unshift(at.label);
    }
    return trace;
  };
  const fail = (kind: "broken" | "stuck", text: string, at: number, state: unknown) => ({
    kind,
    text,
    trace: traceOf(at),
    state,
    states: seen.length,
  });

  /** The number of the state, and whether it is new. */
  function meet(state: State, parent: number, label: string): readonly [number, boolean] {
    const text = JSON.stringify(state);
    const known = index.get(text);
    if (known !== undefined) {
      parents[known]?.push(parent);
      return [known, false];
    }
    const number = seen.length;
    index.set(text, number);
    seen.push({ parent, label, depth: (seen[parent]?.depth ?? -1) + 1 });
    served.push(model.isServed(state));
    parents.push(parent < 0 ? [] : [parent]);
    return [number, true];
  }

  const initial = canonical(model.initial);
  meet(initial, -1, "");
  const wrong = model.broken(initial);
  if (wrong !== undefined) return fail("broken", wrong, 0, initial);
  queue = [initial];
  for (let from = 0; queue.length > 0; ) {
    const level = queue;
    queue = [];
    for (const state of level) {
      for (const step of model.next(state)) {
        steps += 1;
        const after = canonical(step.state);
        const [number, isNew] = meet(after, from, step.label);
        const fault =
          model.brokenStep?.(state, step.state) ?? (isNew ? model.broken(after) : undefined);
        if (fault !== undefined) {
          const trace = [...traceOf(from), step.label];
          return { ...fail("broken", fault, number, after), trace };
        }
        if (isNew) queue.push(after);
        if (seen.length > statesMax) return { kind: "too-large", states: seen.length };
      }
      from += 1;
    }
  }
  const stuck = findStuck(served, parents);
  if (stuck !== undefined) {
    const state = JSON.parse([...index.keys()][stuck] ?? "null") as unknown;
    return fail("stuck", "nothing leads back to service from here", stuck, state);
  }
  return { kind: "holds", states: seen.length, steps, depth: seen.at(-1)?.depth ?? 0 };
}

/** The first state from which none that is served can be reached. */
function findStuck(served: readonly boolean[], parents: readonly number[][]): number | undefined {
  const reaches = [...served];
  const queue = served.flatMap((is, number) => (is ? [number] : []));
  for (let at = queue.pop(); at !== undefined; at = queue.pop()) {
    for (const parent of parents[at] ?? []) {
      if (reaches[parent] === true) continue;
      reaches[parent] = true;
      queue.push(parent);
    }
  }
  const stuck = reaches.indexOf(false);
  return stuck < 0 ? undefined : stuck;
}

/** For people: the steps, numbered, and the state they lead to. */
export function tell(result: Exploration): string {
  if (result.kind === "holds") {
    return `holds in ${result.states} states (${result.steps} steps, ${result.depth} deep)`;
  }
  if (result.kind === "too-large") return `too large: gave up after ${result.states} states`;
  const steps = result.trace.map((label, n) => `${String(n + 1).padStart(3)}. ${label}`);
  return [`${result.kind}: ${result.text}`, ...steps, JSON.stringify(result.state)].join("\n");
}
