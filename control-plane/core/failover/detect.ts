/**
 * From witnesses to a verdict on a cell, and from verdicts to news.
 *
 * What must always be true: a cell is confirmed gone only when at least two of the three kinds of witnesses
 * say so and no partner that is heard says that it is alive. Verdicts are made of what is seen now:
 * nothing is remembered but since when, so a new leader begins anew.
 */
import type { Witness } from "../../../contract/failover-api.ts";
import type { CellView } from "../fleet.ts";
import { type CellSight, controlPlaneWitness, witnessesOf, witnessLimits } from "./witness.ts";

/**
 * `suspect`: some witness says gone, or probes miss. `gray`: it does not serve as it should, and is not dead:
 * a takeover would cost writes that starting it again does not. `gone`: confirmed.
 */
export const verdictStates = ["healthy", "suspect", "gray", "gone"] as const;
export type VerdictState = (typeof verdictStates)[number];

export type Verdict = {
  readonly cell: string;
  readonly state: VerdictState;
  readonly text: string;
  readonly witnesses: readonly Witness[];
  /** Of this state, in a row. */
  readonly forMs: number;
  /** Of the stretch in which it was not well, flapping included; null: it is well, as far as anybody knew. */
  readonly episode: EpisodeAge | null;
};

export type EpisodeAge = {
  readonly forMs: number;
  /** Since it was confirmed gone in it for the first time; null: it never was. */
  readonly goneForMs: number | null;
};

/** Whom nobody else takes out of service meanwhile: whole cells that enforce, and serve somebody. */
export const judgedCells = (cells: readonly CellView[]): readonly CellView[] =>
  cells.filter(
    ({ annex, state, stage }) =>
      annex === null &&
      (state === "active" || state === "cordoned" || state === "draining") &&
      stage.now === "enforce",
  );

/** A single probe that was missed is nobody's news. */
const suspectMissesMin = 2;

/** So many of the three kinds must say gone. */
export const confirmationsMin = 2;

/** What is seen now; since when is remembered. */
export type Judged = Omit<Verdict, "forMs" | "episode">;

export function judgeCell(sight: CellSight): Judged {
  const witnesses = witnessesOf(sight);
  const { state, text } = judgeWitnesses(sight, witnesses);
  return { cell: sight.cell, state, text, witnesses };
}

function judgeWitnesses(
  sight: CellSight,
  witnesses: readonly Witness[],
): { readonly state: VerdictState; readonly text: string } {
  const gone = witnesses.filter(({ says }) => says === "gone");
  const reasons = gone.map((one) => `${one.class}: ${one.text}`).join("; ");
  const veto = witnesses.find(({ class: name, says }) => name === "partners" && says === "alive");
  if (isConfirmed(witnesses)) {
    return { state: "gone", text: `gone by ${gone.length} of 3 witnesses: ${reasons}` };
  }
  if (gone.length > 0 && veto !== undefined) {
    return { state: "suspect", text: `${reasons}; but partners: ${veto.text}` };
  }
  if (gone.length > 0) {
    return {
      state: "suspect",
      text: `${reasons}; ${confirmationsMin} of 3 kinds of witnesses must say so`,
    };
  }
  return judgeByEyes(sight, witnesses.find((one) => one.class === "control-plane")?.text ?? "");
}

/** Nobody says gone: what this control plane saw itself. */
function judgeByEyes(
  sight: CellSight,
  text: string,
): { readonly state: VerdictState; readonly text: string } {
  const { agent, probes } = sight;
  const isCalling = agent.silentMs !== null && agent.silentMs <= witnessLimits.agentFreshMs;
  if (isCalling && agent.databaseLostForMs !== null) return { state: "suspect", text };
  if (isCalling && !agent.appReachable) {
    return {
      state: "gray",
      text: "its application does not answer, its database does: a restart mends it, a takeover would lose what is not replicated",
    };
  }
  if (agent.silentMs === null || controlPlaneWitness(sight).says === "alive") {
    return { state: "healthy", text };
  }
  if (probes.misses === 0) {
    return { state: sight.watchedMs < witnessLimits.agentReturnMs ? "healthy" : "gray", text };
  }
  return { state: probes.misses >= suspectMissesMin ? "suspect" : "healthy", text };
}

/** The one place that says what confirms a death. */
export function isConfirmed(witnesses: readonly Witness[]): boolean {
  const gone = witnesses.filter(({ says }) => says === "gone").length;
  const seenByPartner = witnesses.some(
    ({ class: name, says }) => name === "partners" && says === "alive",
  );
  return gone >= confirmationsMin && !seenByPartner;
}

/** Witnesses disagree: look again at once, instead of waiting longer. */
export const wantsProbe = ({ state, witnesses }: Pick<Verdict, "state" | "witnesses">): boolean =>
  state === "suspect" &&
  witnesses.some(({ class: name, says }) => name === "control-plane" && says !== "gone");

/**
 * By this control plane's own eyes: what makes it doubt its eyes when there are many. One that only begins to
 * miss counts too: of cells that are cut off together one is always confirmed first.
 */
export const looksBad = ({ state, witnesses }: Pick<Verdict, "state" | "witnesses">): boolean =>
  witnesses.some(
    ({ class: name, says }) =>
      name === "control-plane" && (says === "gone" || (says === "unknown" && state === "suspect")),
  );

/**
 * This process stood still (a pause of its machine, a long stop of its event loop) or could not look: what it
 * missed meanwhile says nothing about cells.
 */
export const observerGapMsMax = 1500;
export const stoodStill = (sinceLastLookMs: number): boolean => sinceLastLookMs > observerGapMsMax;

/** A stretch of time in which a cell was not simply healthy. */
export type Episode = {
  readonly sinceMs: number;
  /** When it was confirmed gone for the first time; null: it never was. */
  readonly goneSinceMs: number | null;
  /** Since when it has been well again; null: it is not. */
  readonly calmSinceMs: number | null;
  /** States, suggestions and obstacles that were told in it: each once, however often the cell flaps. */
  readonly told: readonly string[];
};

/** A cell that flaps is one episode: it must be well for so long until it is over. */
export const calmMs = 3000;

export type Followed = {
  readonly episode: Episode | undefined;
  /** Worth an event. */
  readonly news: string | undefined;
};

export function followEpisode(
  before: Episode | undefined,
  { cell, state, text }: Pick<Verdict, "cell" | "state" | "text">,
  nowMs: number,
): Followed {
  if (state === "healthy") {
    if (before === undefined) return { episode: undefined, news: undefined };
    const calmSinceMs = before.calmSinceMs ?? nowMs;
    if (nowMs - calmSinceMs < calmMs) {
      return { episode: { ...before, calmSinceMs }, news: undefined };
    }
    const news = before.told.length > 0 ? `${cell} is well again: ${text}` : undefined;
    return { episode: undefined, news };
  }
  const known = before ?? { sinceMs: nowMs, goneSinceMs: null, calmSinceMs: null, told: [] };
  const goneSinceMs = known.goneSinceMs ?? (state === "gone" ? nowMs : null);
  const episode = { ...known, goneSinceMs, calmSinceMs: null };
  // Suspicions come and go, and health tells of them; here they only begin the episode.
  if (state === "suspect") return { episode, news: undefined };
  return once(episode, state, `${cell} is ${state === "gone" ? text : `${state}: ${text}`}`);
}

/** Of a cell that is judged so now, with the episode that it was in before. */
export function episodeAge(
  before: Episode | undefined,
  state: VerdictState,
  nowMs: number,
): EpisodeAge | null {
  if (state === "healthy") return null;
  const goneSinceMs = before?.goneSinceMs ?? (state === "gone" ? nowMs : null);
  return {
    forMs: nowMs - (before?.sinceMs ?? nowMs),
    goneForMs: goneSinceMs === null ? null : nowMs - goneSinceMs,
  };
}

/** Of a thing that was told in this episode nothing more is told. */
export const once = (
  episode: Episode,
  mark: string,
  news: string,
): Followed & { episode: Episode } =>
  episode.told.includes(mark)
    ? { episode, news: undefined }
    : { episode: { ...episode, told: [...episode.told, mark] }, news };
