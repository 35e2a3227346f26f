/** `cellctl recovery …`: after a restore from backup, what the control plane waits for; and going on without a cell. */
import type { z } from "zod";
import { dryRunSchema } from "../../contract/control-api.ts";
import { recoverySchema } from "../../contract/recovery-api.ts";
import { confirm } from "../confirm.ts";
import { type Action, destructiveAtOnce, flag, type Register, text } from "../grammar.ts";
import { nextSteps, sendChange } from "../mutate.ts";
import type { View } from "../render/output.ts";
import { counted } from "../render/units.ts";
import { planView } from "../render/views-op.ts";

const recoveryView: View<z.infer<typeof recoverySchema>> = {
  id: ({ mode }) => mode,
  columns: [{ head: "MODE", cell: ({ mode }) => mode }],
  details: (recovery) => [
    ["mode", recovery.mode],
    ["step", recovery.step],
    ["text", recovery.text],
    [
      "cells",
      recovery.cells.map(
        ({ cell, annex, state, claims, reason }) =>
          `${annex === undefined ? cell : `a standby in ${cell}`}  ${state}  ${counted(claims, "key")}  ${reason}`,
      ),
    ],
    ["next", recovery.next_steps],
  ],
};

export const register: Register = (noun, bind) => {
  bind(
    noun.command("show").alias("status").description("what recovery waits for"),
    async (session) => {
      const api = await session.api();
      await session.out.one(await api.get("/v1/recovery", recoverySchema), recoveryView);
      return 0;
    },
  );
  bind(
    destructiveAtOnce(
      noun
        .command("freeze <cell>")
        .description(
          "go on without a cell that does not return; its keys stay unavailable until it does",
        ),
    ),
    resolveBy(
      "freeze",
      (cell) =>
        `The fleet goes on without ${cell}; its tenants stay unavailable until it reports, and so do tenants that it may have taken over.`,
    ),
  );
  bind(
    destructiveAtOnce(
      noun
        .command("give-up <cell>")
        .description(
          "of one that is frozen and lost for good: tenants that it may have taken over go back to their former cells",
        ),
    ),
    resolveBy(
      "give-up",
      (cell) =>
        `What ${cell} has acknowledged since the backup for tenants of other cells is lost; those cells serve them again.`,
    ),
  );
};

const resolveBy =
  (action: "freeze" | "give-up", effectOf: (cell: string) => string): Action =>
  async (session, [cell = ""], options) => {
    const change = { path: "/v1/recovery/resolve", body: { cell, action } };
    if (flag(options, "dryRun")) {
      const plan = await sendChange(session, options, change, dryRunSchema);
      await session.out.one(plan, planView);
      return 0;
    }
    await confirm(session, { name: cell, effect: effectOf(cell) }, text(options, "confirm"));
    const recovery = await sendChange(session, options, change, recoverySchema);
    await session.out.one(recovery, recoveryView);
    await nextSteps(session, recovery.next_steps);
    return 0;
  };
