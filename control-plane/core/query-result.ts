/**
 * What is told of a question: the rows of the cells that answered, and every other cell by name with
 * the reason. Pure; a cell is in one of the two lists, never in none.
 */
import type { QueryAnswer } from "../../contract/cell-protocol.ts";
import type { QueryResult } from "../../contract/query-api.ts";
import { type CellView, routerLiveMs } from "./fleet.ts";

type Answer = QueryAnswer["answer"];
type Rows = QueryResult["cells"][string];

/** A primary agent that has been silent for so long is not there. */
const agentLiveMs = routerLiveMs;

export function joinAnswers(
  asked: { readonly cells: readonly string[]; readonly timeoutMs: number },
  answers: ReadonlyMap<string, Answer>,
  fleet: { readonly cells: readonly CellView[]; readonly nowMs: number },
): Pick<QueryResult, "complete" | "missing" | "cells"> {
  const cells: Record<string, Rows> = {};
  const missing: Array<QueryResult["missing"][number]> = [];
  for (const id of asked.cells) {
    const answer = answers.get(id);
    if (answer?.kind === "rows") {
      const { columns, rows, truncated } = answer;
      cells[id] = { columns, rows, truncated };
      continue;
    }
    const cell = fleet.cells.find((one) => one.id === id);
    const reason =
      answer === undefined
        ? whySilent(cell, fleet.nowMs, asked.timeoutMs)
        : `${answer.code}: ${answer.message}`;
    missing.push({ cell: id, reason });
  }
  const isWhole = Object.values(cells).every(({ truncated }) => !truncated);
  return { complete: missing.length === 0 && isWhole, missing, cells };
}

function whySilent(cell: CellView | undefined, nowMs: number, timeoutMs: number): string {
  if (cell === undefined || cell.state === "retired") return "it is not in the fleet any more";
  const primary = cell.agents.find((agent) => agent.primary);
  if (primary === undefined) return "no primary agent of it has ever called";
  const silentMs = nowMs - primary.seenAtMs;
  if (silentMs > agentLiveMs) {
    return `its primary agent was heard ${Math.round(silentMs / 1000)} s ago`;
  }
  return `it did not answer within ${timeoutMs} ms`;
}
