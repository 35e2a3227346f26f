/** `cellctl cell lease-mode …`: how a cell's leases end, for those who trust a power switch more than clocks. */
import type { Command } from "commander";
import type { z } from "zod";
import { dryRunSchema } from "../../contract/control-api.ts";
import { type LeaseMode, leaseModes } from "../../contract/lease-mode.ts";
import { leaseModeSetSchema } from "../../contract/lease-mode-api.ts";
import { apiPath } from "../api.ts";
import { usage } from "../failures.ts";
import { type Action, type Bind, flag, intent, text } from "../grammar.ts";
import { nextSteps, sendChange } from "../mutate.ts";
import type { View } from "../render/output.ts";
import { planView } from "../render/views-op.ts";

export const leaseModeHelp =
  "timed: its leases end by themselves; manual: it serves until it is powered off, and nobody takes over before";

export function leaseModeNamed(said: string, where: string): LeaseMode {
  const mode = leaseModes.find((one) => one === said);
  if (mode === undefined) throw usage(`${where}: "${said}" is neither timed nor manual`);
  return mode;
}

export const registerLeaseMode = (noun: Command, bind: Bind): Command =>
  bind(
    intent(
      noun
        .command("lease-mode <cell> <mode>")
        .description(`how its leases end (wants --reason); ${leaseModeHelp}`),
    ),
    setLeaseMode,
  );

type LeaseModeSet = z.infer<typeof leaseModeSetSchema>;

const leaseModeView: View<LeaseModeSet> = {
  id: ({ id }) => id,
  columns: [
    { head: "CELL", cell: ({ id }) => id },
    { head: "LEASES", cell: ({ mode }) => mode },
    { head: "ACKNOWLEDGED", cell: ({ settled }) => (settled ? "yes" : "not yet") },
  ],
};

const setLeaseMode: Action = async (session, [id = "", said = ""], options) => {
  const mode = leaseModeNamed(said, "<mode>");
  if (text(options, "reason") === undefined) {
    throw usage('say why: --reason "…" stands in the audit log');
  }
  const change = { path: `${apiPath`/v1/cells/${id}`}/lease-mode`, body: { mode } };
  if (flag(options, "dryRun")) {
    await session.out.one(await sendChange(session, options, change, dryRunSchema), planView);
    return 0;
  }
  const set = await sendChange(session, options, change, leaseModeSetSchema);
  await session.out.one(set, leaseModeView);
  if (!set.settled) await session.note(`${id} counts as manual until it has acknowledged.`);
  await nextSteps(session, set.next_steps);
  return 0;
};
