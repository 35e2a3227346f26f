/**
 * Lets a connection to PostgreSQL prepare what it is asked again and again: each text is parsed and planned
 * once per connection instead of once per question, which is most of what a small question costs.
 *
 * What must always be true: the same questions get the same answers as without it. Statements stay prepared
 * for as long as the session lasts, so this is for connections of our own, without a pooler in between.
 * PostgreSQL plans anew by itself when tables or functions change
 * (https://www.postgresql.org/docs/18/sql-prepare.html).
 */
import type pg from "pg";

/** A text that is seen for the first time may be the last of its kind, such as a list of any length. */
const usesMin = 3;
const namesMax = 500;
const textMax = 20_000;
/** A statement gives other columns than when it was prepared: only a new session forgets it. */
const outdatedPlan = "0A000";

type Question = { readonly text: string; readonly values?: readonly unknown[] };
type Ask = (question: unknown, ...rest: readonly unknown[]) => unknown;

const uses = new Map<string, number>();
const names = new Map<string, string>();

/** From now on, for as long as it is open. */
export function letPrepare(client: pg.ClientBase): void {
  const asking = client as unknown as { query: Ask; end?: () => Promise<void> };
  const ask = asking.query.bind(client);
  asking.query = (question, ...rest) => {
    const named = nameIt(question, rest[0]);
    if (named === undefined) return ask(question, ...rest);
    const answer = ask(named, ...rest.filter((one) => !Array.isArray(one)));
    if (answer instanceof Promise) {
      answer.catch((error: unknown) => {
        const isOutdated = (error as { readonly code?: string }).code === outdatedPlan;
        if (isOutdated) void asking.end?.().catch(() => {}); // Whoever asked has heard of it.
      });
    }
    return answer;
  };
}

/** Undefined: it is asked as it is. */
function nameIt(question: unknown, given: unknown): (Question & { name: string }) | undefined {
  const asked = typeof question === "string" ? { text: question } : (question as Question);
  const { text } = asked;
  const isPlain =
    typeof text === "string" && !("name" in asked && asked.name) && !("submit" in asked);
  const values: readonly unknown[] = Array.isArray(given) ? given : (asked.values ?? []);
  if (!isPlain || text.length > textMax || (values.length === 0 && !isOneLook(text))) {
    return undefined;
  }
  const name = nameOf(text);
  return name === undefined ? undefined : { ...asked, values, name };
}

/** Without parameters several statements may stand in one text, which cannot be prepared. */
const isOneLook = (text: string): boolean => /^\s*(?:select|with)\b[^;]*$/i.test(text);

function nameOf(text: string): string | undefined {
  const known = names.get(text);
  if (known !== undefined) return known;
  const count = (uses.get(text) ?? 0) + 1;
  if (count < usesMin) {
    if (uses.size >= namesMax * 4) uses.clear();
    uses.set(text, count);
    return undefined;
  }
  uses.delete(text);
  if (names.size >= namesMax) return undefined;
  const name = `cellfleet-${names.size + 1}`;
  names.set(text, name);
  return name;
}
