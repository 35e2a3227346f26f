/**
 * The last step of an answer to a person: annexes are named by their hosts (core/shown-hosts.ts). Answers to
 * machines, standbys, whose ids these are, and whatever holds rows or the audit chain, go out as they are.
 */
import { CellError } from "../../contract/errors.ts";
import { type AnnexNames, mayNameAnnexes, shownHosts, shownText } from "../core/shown-hosts.ts";
import { readAnnexNames } from "../store/annex-names.ts";
import type { Database } from "../store/database.ts";
import type { Answer, Endpoint, Incoming } from "./endpoint.ts";

const told =
  /^\/v1\/(tenants|moves|failovers|failover-policy|ops|events|route|detection|recovery|status|cells)(\/|$)/;
const person = /^\/v1\/(?!machine\/|standbys)/;
const verbatim = /\/(rows|export|import)$/;

export const namesHosts = ({ path }: Pick<Endpoint, "path">): boolean =>
  told.test(path) && !verbatim.test(path);

export async function answerWithHosts(
  database: Database,
  one: Pick<Endpoint, "path">,
  answer: Answer,
): Promise<Answer> {
  if (!namesHosts(one) || !mayNameAnnexes(JSON.stringify(answer.body))) return answer;
  return { ...answer, body: shownHosts(answer.body, await readAnnexNames(database.read)) };
}

/** Of a refusal its message alone; an annex that the question named stays what it was called. */
export async function errorWithHosts(
  database: Database,
  error: unknown,
  one: Pick<Endpoint, "path">,
  params: Incoming["params"],
): Promise<unknown> {
  if (!(error instanceof CellError) || !mayNameAnnexes(error.message)) return error;
  if (!person.test(one.path)) return error;
  const names = await readAnnexNames(database.read).catch((): AnnexNames => new Map());
  const others = new Map([...names].filter(([id]) => !Object.values(params).includes(id)));
  const { code, details, nextSteps, cause } = error;
  return new CellError(code, shownText(error.message, others), {
    ...{ details, nextSteps, cause },
  });
}
