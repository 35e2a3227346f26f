/** `cellctl cell readmit …`: a person lets a quarantined cell back, and vouches for its database as it is. */
import type { Command } from "commander";
import type { z } from "zod";
import { dryRunSchema } from "../../contract/control-api.ts";
import { readmittedSchema } from "../../contract/recovery-api.ts";
import { apiPath } from "../api.ts";
import { confirm } from "../confirm.ts";
import { type Action, type Bind, destructiveAtOnce, flag, text } from "../grammar.ts";
import { nextSteps, sendChange } from "../mutate.ts";
import type { View } from "../render/output.ts";
import { planView } from "../render/views-op.ts";

export const registerReadmit = (noun: Command, bind: Bind): Command =>
  bind(
    destructiveAtOnce(
      noun
        .command("readmit <cell>")
        .description(
          "let a cell back whose database was set back or cloned, as it is: what it lacks is lost",
        )
        .option("--other-copies-off", "every other copy is powered off; manual leases want it"),
    ),
    readmit,
  );

const readmittedView: View<z.infer<typeof readmittedSchema>> = {
  id: ({ id }) => id,
  columns: [
    { head: "CELL", cell: ({ id }) => id },
    { head: "STATE", cell: ({ state }) => state },
  ],
};

const readmit: Action = async (session, [cell = ""], options) => {
  const body = flag(options, "otherCopiesOff") ? { otherCopiesOff: true } : {};
  const change = { path: `${apiPath`/v1/cells/${cell}`}/readmit`, body };
  if (flag(options, "dryRun")) {
    await session.out.one(await sendChange(session, options, change, dryRunSchema), planView);
    return 0;
  }
  const effect = `${cell} serves again with its database as it is; what only its standbys have is given up.`;
  await confirm(session, { name: cell, effect }, text(options, "confirm"));
  const back = await sendChange(session, options, change, readmittedSchema);
  await session.out.one(back, readmittedView);
  await nextSteps(session, back.next_steps);
  return 0;
};
