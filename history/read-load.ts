/**
 * Customers that read, and that change registers: one turn each, recorded as rules 4 and 5 of the checker
 * need it. A turn is one request; what was not answered is not asked again under the same name.
 */
import { z } from "zod";
import { type Asking, type Attempt, attempt } from "./ask.ts";
import type { Recorder } from "./recorder.ts";
import type { Turn } from "./workload.ts";

type Customer = {
  readonly asking: Asking;
  readonly recorder: Recorder;
  readonly run: string;
  readonly tenant: string;
  readonly process: string;
};

const pageSize = 100;
const pageSchema = z.object({
  items: z.array(z.object({ id: z.union([z.number(), z.string()]), item: z.string() })),
  next: z.string().nullable(),
});

/** The newest page of the tenant's orders, in one answer and so of one moment. */
export function createReader({ asking, recorder, run, tenant, process }: Customer): Turn {
  return async () => {
    const recorded = recorder.list({ process, tenant });
    const path = `/orders?limit=${pageSize}`;
    const answer = await attempt(asking, { tenant, method: "GET", path }, pageSchema);
    if (answer.outcome !== "ok") return end(recorded, answer);
    const { cell, epoch, result } = answer;
    const last = result.items.at(-1)?.id;
    recorded.listed({
      cell,
      epoch,
      from: result.next === null || last === undefined ? null : Number(last),
      // What is not of this run is not its business.
      seen: result.items
        .filter(({ item }) => item.startsWith(`${run}/`))
        .map(({ id, item }) => ({ value: item, ref: String(id) })),
    });
    return "ok";
  };
}

const foundSchema = z.object({ found: z.string().nullable() });
/** Short histories per register keep the search for an order quick. */
const turnsPerRegister = 50;
/** Every so many turns look without changing anything. */
const lookEvery = 3;

/** Processes of one tenant meet at the same registers, each for `turnsPerRegister` turns. */
export function createRegisterUser({ asking, recorder, run, tenant, process }: Customer): Turn {
  let known: string | null = null;
  return async (n) => {
    if (n % turnsPerRegister === 0) known = null;
    const register = `${run}-${Math.floor(n / turnsPerRegister)}`;
    const path = `/registers/${register}`;
    const isLook = n % lookEvery === 0;
    const value = `${run}/${process}/${n}`;
    const recorded = isLook
      ? recorder.look({ process, tenant, register })
      : recorder.swap({ process, tenant, register, expected: known, value });
    const question = isLook
      ? ({ tenant, method: "GET", path } as const)
      : ({ tenant, method: "PUT", path, body: { expected: known, value } } as const);
    const answer = await attempt(asking, question, foundSchema);
    if (answer.outcome !== "ok") return end(recorded, answer);
    const { cell, epoch, result } = answer;
    recorded.found({ cell, epoch, value: result.found });
    known = !isLook && result.found === known ? value : result.found;
    return "ok";
  };
}

function end(
  recorded: { readonly fail: (reason: string) => void; readonly info: (reason: string) => void },
  answer: Exclude<Attempt<unknown>, { outcome: "ok" }>,
): "fail" | "unknown" {
  if (answer.outcome === "fail") recorded.fail(answer.reason);
  else recorded.info(answer.reason);
  return answer.outcome;
}
