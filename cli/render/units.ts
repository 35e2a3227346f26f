/** Numbers and times for people. Scripts get the plain values by `-o json`. */

const second = 1000;
const minute = 60 * second;
const hour = 60 * minute;
const day = 24 * hour;

/** `3m`, `5h`, `92d`: the two largest units below a day and a half, else days. */
export function duration(ms: number): string {
  const abs = Math.abs(ms);
  const sign = ms < 0 ? "-" : "";
  if (abs < second) return `${sign}${Math.round(abs)}ms`;
  if (abs < minute) return `${sign}${trim(abs / second)}s`;
  if (abs < hour) return `${sign}${pair(abs, minute, "m", second, "s")}`;
  if (abs < 2 * day) return `${sign}${pair(abs, hour, "h", minute, "m")}`;
  return `${sign}${Math.floor(abs / day)}d`;
}

function pair(ms: number, large: number, largeUnit: string, small: number, smallUnit: string) {
  const rest = Math.floor((ms % large) / small);
  return `${Math.floor(ms / large)}${largeUnit}${rest === 0 ? "" : `${rest}${smallUnit}`}`;
}

const trim = (value: number): string =>
  value < 10 ? String(Math.round(value * 10) / 10) : String(Math.floor(value));

/** How long ago an ISO time was; `-` when it is not a time. */
export function age(iso: string, nowMs: number): string {
  const at = Date.parse(iso);
  if (Number.isNaN(at)) return "-";
  const ms = Math.max(0, nowMs - at);
  return ms < second ? "0s" : duration(ms);
}

/** `1 key`, `2 keys`. */
export const counted = (value: number, one: string): string =>
  `${value} ${one}${value === 1 ? "" : "s"}`;

/** `412`, `1.9k`, `3.4M`. */
export function count(value: number): string {
  if (Math.abs(value) < 1000) return trimCount(value);
  for (const [limit, unit] of [
    [1e6, "k"],
    [1e9, "M"],
    [1e12, "G"],
  ] as const) {
    if (Math.abs(value) < limit) return `${trimCount((value / limit) * 1000)}${unit}`;
  }
  return `${trimCount(value / 1e12)}T`;
}

const trimCount = (value: number): string =>
  Math.abs(value) < 10 ? String(Math.round(value * 10) / 10) : String(Math.round(value));

/** `512B`, `1.5KiB`, `1TiB`. */
export function bytes(value: number): string {
  let rest = value;
  for (const unit of ["B", "KiB", "MiB", "GiB", "TiB"]) {
    if (rest < 1024) return `${trimCount(rest)}${unit}`;
    rest /= 1024;
  }
  return `${trimCount(rest)}PiB`;
}

const durationUnits: Readonly<Record<string, number>> = {
  ms: 1,
  s: second,
  m: minute,
  h: hour,
  d: day,
};

/** Milliseconds of `90s`, `10m`, `1h30m`, `2d`; a bare number is seconds. Undefined if it is none of these. */
export function parseDuration(raw: string): number | undefined {
  if (/^\d+(\.\d+)?$/.test(raw)) return Number(raw) * second;
  if (!/^(\d+(\.\d+)?(ms|[smhd]))+$/.test(raw)) return undefined;
  let total = 0;
  for (const [, value, unit] of raw.matchAll(/(\d+(?:\.\d+)?)(ms|[smhd])/g)) {
    total += Number(value) * (durationUnits[unit ?? ""] ?? 0);
  }
  return total;
}

const sizeUnits: Readonly<Record<string, number>> = {
  "": 1,
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
};

/** Bytes of `500MB`, `2GiB` or a bare number. Undefined if it is none of these. */
export function parseSize(raw: string): number | undefined {
  const [, value, unit = ""] = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(raw) ?? [];
  const factor = sizeUnits[unit.toLowerCase()];
  return value === undefined || factor === undefined
    ? undefined
    : Math.round(Number(value) * factor);
}
