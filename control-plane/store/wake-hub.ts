/**
 * Long polls wait here: each for one topic, woken by a notification, bounded by its own time. A wake is
 * a hint; whoever is woken reads the database again, and reads it now and then without being woken.
 */
import type { Clock } from "../../runtime/clock.ts";
import type { Channel } from "./notify.ts";

export type WakeHub = {
  /** Wakes who waits for this topic; an empty topic wakes the whole channel. */
  readonly wake: (channel: Channel, topic: string) => void;
  /** Resolves when woken, after `ms`, or when the signal aborts. Never rejects. */
  readonly wait: (
    channel: Channel,
    topic: string,
    ms: number,
    signal?: AbortSignal,
  ) => Promise<void>;
};

export function createWakeHub(clock: Clock): WakeHub {
  const waiting = new Map<Channel, Map<string, Set<() => void>>>();

  function topicsOf(channel: Channel): Map<string, Set<() => void>> {
    const topics = waiting.get(channel) ?? new Map<string, Set<() => void>>();
    waiting.set(channel, topics);
    return topics;
  }

  return {
    wake: (channel, topic) => {
      const topics = topicsOf(channel);
      const names = topic === "" ? [...topics.keys()] : [topic, ""];
      for (const name of names) for (const go of topics.get(name) ?? []) go();
    },
    wait: async (channel, topic, ms, signal) => {
      const topics = topicsOf(channel);
      const nap = new AbortController();
      const go = () => nap.abort();
      const set = topics.get(topic) ?? new Set<() => void>();
      topics.set(topic, set.add(go));
      signal?.addEventListener("abort", go, { once: true });
      if (signal?.aborted === true) go();
      await clock.sleep(ms, nap.signal);
      signal?.removeEventListener("abort", go);
      set.delete(go);
      if (set.size === 0) topics.delete(topic);
    },
  };
}
