/** What a symptom is, and the numbers in which it is told. */

/** In the order in which systems grow; each answers what the one before cannot. */
export const phases = ["one-database", "queues-and-replicas", "services", "cells"] as const;
export type Phase = (typeof phases)[number];

/** What runs short. A cheaper cure of the same resource comes before a dearer one. */
export type Resource = "cpu" | "connections" | "io" | "writes" | "size" | "tenant" | "xid" | "time";

export type Symptom = {
  /** Stable: scripts name it. */
  readonly id: string;
  /** What it speaks for. `one-database`: there is something to mend where it is. */
  readonly phase: Phase;
  /** `act`: it hurts or soon will. `watch`: it is on its way. */
  readonly weight: "act" | "watch";
  readonly resource: Resource;
  /** One sentence, with its number. */
  readonly text: string;
  readonly value: number;
  readonly limit: number;
  readonly unit: string;
  /** What to do first about it. */
  readonly first: string;
};

export const percent = (share: number): string => `${Math.round(share * 100)} %`;

export function size(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"] as const;
  let rest = bytes;
  let at = 0;
  while (rest >= 1024 && at < units.length - 1) {
    rest /= 1024;
    at += 1;
  }
  return `${rest < 10 && at > 0 ? rest.toFixed(1) : Math.round(rest)} ${units[at]}`;
}

export const count = (value: number): string => Math.round(value).toLocaleString("en-US");

export function time(seconds: number): string {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} days`;
}
