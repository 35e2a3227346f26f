/** `cellctl explain request ID`: what became of a request, by the id that stood in its answer. */
import { CellError } from "../contract/errors.ts";
import {
  type RememberedAnswer,
  type RememberedRequest,
  rememberedAnswerSchema,
} from "../contract/remembered-request.ts";
import type { View } from "./render/output.ts";
import { askRouters, findRouters, type Silent } from "./router-admins.ts";
import type { Session } from "./session.ts";

type Found = {
  readonly id: string;
  /** Newest first; a client may have used one id more than once. */
  readonly items: readonly RememberedRequest[];
  readonly silent: readonly Silent[];
};

export async function explainRequest(
  session: Session,
  id: string,
  named: readonly string[],
): Promise<number> {
  const routers = await findRouters(session, named);
  const path = `/explain?request=${encodeURIComponent(id)}`;
  const { answers, silent } = await askRouters(routers, path, (text) =>
    rememberedAnswerSchema.parse(JSON.parse(text)),
  );
  const items = answers.flatMap(({ value }) => value.items);
  if (items.length === 0)
    throw forgotten(
      id,
      answers.map(({ value }) => value),
      silent,
    );
  items.sort((a, b) => (a.at < b.at ? 1 : -1));
  await session.out.one({ id, items, silent }, foundView);
  const steps = items[0]?.nextSteps ?? [];
  if (!session.out.structured && steps.length > 0) {
    await session.note(`Next: ${steps.join("\n      ")}`);
  }
  return 0;
}

const foundView: View<Found> = {
  id: ({ id }) => id,
  columns: [{ head: "REQUEST", cell: ({ id }) => id }],
  details: ({ items, silent }) => [
    ...items.flatMap(storyOf),
    ...silent.map(({ router, why }) => [`router ${router}`, `does not answer: ${why}`] as const),
  ],
};

function storyOf(item: RememberedRequest): (readonly [string, string | readonly string[]])[] {
  const { timings } = item;
  return [
    ["request", `${item.id} (${item.method}, ${item.protocol})`],
    ["when", `${item.at}, router ${item.router}`],
    ["outcome", outcomeOf(item)],
    ["tenant", item.tenant ?? ""],
    ["cell", item.cell ?? ""],
    ["epoch", item.epoch === null ? "" : `${item.epoch}, table revision ${item.revision}`],
    ["what happened", item.trace],
    [
      "time",
      `${timings.totalMs}ms in all: router ${timings.overheadMs}ms, held ${timings.holdMs}ms, seat ${timings.queueMs}ms, connection ${timings.connectMs}ms, first byte ${timings.firstByteMs}ms`,
    ],
    ["trace id", item.traceId],
  ];
}

/** A fallback is a good answer, and the code is why it was not the cell's own. */
function outcomeOf({ status, code, flag }: RememberedRequest): string {
  const isInstead = flag === "stale" || flag === "static";
  const why = code === null ? "" : ` ${isInstead ? "in place of " : ""}${code}`;
  return `${status}${why} (${flag})`;
}

/** Says how far back each router knows: "not found" must not be read as "did not happen". */
function forgotten(
  id: string,
  answers: readonly RememberedAnswer[],
  silent: readonly Silent[],
): CellError {
  const known = answers.map((answer) => `router ${answer.router} ${reach(answer)}`);
  const deaf = silent.map(({ router, why }) => `router ${router} does not answer (${why})`);
  const none = known.length + deaf.length === 0 ? ["the fleet has no router"] : [];
  return new CellError(
    "NOT_FOUND",
    `no router remembers request ${id}: ${[...known, ...deaf, ...none].join("; ")}`,
    {
      details: {
        silent,
        remembers: answers.map(({ router, remembers }) => ({ router, remembers })),
      },
      nextSteps: [
        `search the routers' access log for "req_id":"${id}" (it has every request that failed)`,
        "cellctl router ls             (one that is missing here: name its admin port with --router-admin URL)",
      ],
    },
  );
}

const reach = ({ remembers, startedAt }: RememberedAnswer): string => {
  const since = (kind: "failed" | "refused") => remembers[kind].since ?? startedAt;
  return `knows failures since ${since("failed")}, refusals since ${since("refused")} and one in a hundred of the rest`;
};
