/**
 * Which addresses stand behind the host names of endpoints, asked again now and then. Left alone, a pool
 * asks once per connection and keeps its connections as long as they are busy: an instance that comes gets
 * nothing, one that goes is noticed when it breaks, and several behind one name share one breaker.
 *
 * What must always be true: without an answer the last one stands; a name without any is left to the
 * system, which then tries what it finds; no more than so many addresses of one name are used.
 */
import { isIP } from "node:net";
import type { TableState } from "../../contract/table-state.ts";
import type { Clock } from "../../runtime/clock.ts";
import { jitter, type Random } from "../../runtime/random.ts";

export type Lookup = (hostname: string) => Promise<ReadonlyArray<{ readonly address: string }>>;

export type NamesOptions = {
  readonly clock: Clock;
  readonly random: Random;
  readonly lookup: Lookup;
  /** Between two questions for one name: so old may an answer be. */
  readonly intervalMs: number;
  readonly onFailed: () => void;
  /** After each answer that says something new. */
  readonly onChange: () => void;
};

const addressesMax = 16;
const spread = 0.2;

type Name = { addresses: readonly string[]; readonly stop: AbortController };
const none: readonly string[] = [];

export class Names {
  readonly #options: NamesOptions;
  readonly #names = new Map<string, Name>();

  constructor(options: NamesOptions) {
    this.#options = options;
  }

  /** Each of these has connections of its own. Empty: left to the system. */
  addressesOf(url: string): readonly string[] {
    if (this.#names.size === 0) return none;
    return this.#names.get(new URL(url).hostname)?.addresses ?? none;
  }

  /** After each change of the table. */
  follow(lists: TableState["lists"]): void {
    const wanted = new Set(
      [lists.globalServices ?? {}, ...lists.cells.map(({ services }) => services)]
        .flatMap((services) => Object.values(services).flatMap(({ endpoints }) => endpoints))
        .map((url) => new URL(url).hostname)
        .filter((host) => !host.startsWith("[") && isIP(host) === 0),
    );
    for (const [host, { stop }] of this.#names) {
      if (wanted.has(host)) continue;
      stop.abort();
      this.#names.delete(host);
    }
    for (const host of wanted) {
      if (this.#names.has(host)) continue;
      const name: Name = { addresses: none, stop: new AbortController() };
      this.#names.set(host, name);
      void this.#keepAsking(host, name);
    }
  }

  close(): void {
    for (const { stop } of this.#names.values()) stop.abort();
    this.#names.clear();
  }

  async #keepAsking(host: string, name: Name): Promise<void> {
    const { clock, random, intervalMs, lookup, onFailed, onChange } = this.#options;
    const { signal } = name.stop;
    while (!signal.aborted) {
      const found = await lookup(host).catch(() => undefined);
      if (signal.aborted) return;
      if (found === undefined) onFailed();
      else {
        const addresses = usedOf(found.map(({ address }) => address));
        const isNew = addresses.join() !== name.addresses.join();
        name.addresses = addresses;
        if (isNew) onChange();
      }
      await clock.sleep(jitter(random, intervalMs, spread), signal);
    }
  }
}

/**
 * Those of one family. Where there is one of each, the system tries both for every connection, which is
 * better than to choose.
 */
export function usedOf(addresses: readonly string[]): readonly string[] {
  const four = [...new Set(addresses.filter((one) => isIP(one) === 4))].sort(byText);
  const six = [...new Set(addresses.filter((one) => isIP(one) === 6))].sort(byText);
  if (four.length <= 1 && six.length > 0 && four.length > 0) return none;
  return (four.length > 0 ? four : six).slice(0, addressesMax);
}

const byText = (one: string, two: string): number => (one < two ? -1 : one > two ? 1 : 0);
