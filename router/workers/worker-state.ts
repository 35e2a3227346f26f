/**
 * The life of a worker as a state machine. A worker that is not `open` has no door of its own: before,
 * because it has no table yet or its predecessor still listens; after, because its successor does.
 */
export const workerStates = ["starting", "ready", "opening", "open", "leaving", "gone"] as const;
export type WorkerState = (typeof workerStates)[number];

export const workerEvents = ["loaded", "given-doors", "opened", "told-to-leave", "ended"] as const;
export type WorkerEvent = (typeof workerEvents)[number];

/** What is missing cannot happen or changes nothing. */
export const workerTransitions: Readonly<
  Record<WorkerState, Readonly<Partial<Record<WorkerEvent, WorkerState>>>>
> = {
  starting: { loaded: "ready", "told-to-leave": "leaving", ended: "gone" },
  ready: { "given-doors": "opening", "told-to-leave": "leaving", ended: "gone" },
  opening: { opened: "open", "told-to-leave": "leaving", ended: "gone" },
  open: { "told-to-leave": "leaving", ended: "gone" },
  leaving: { ended: "gone" },
  gone: {},
};

export const stepWorker = (state: WorkerState, event: WorkerEvent): WorkerState =>
  workerTransitions[state][event] ?? state;

/** May requests be on their way in it? Then a revision is not served before it says so. */
export const mayServe = (state: WorkerState): boolean =>
  state === "opening" || state === "open" || state === "leaving";
