/** Lever, switches and verdicts of the safety rules, for people. */
import type { z } from "zod";
import type { GatingSwitch, Lever, safetySchema } from "../../contract/safety-api.ts";
import type { View } from "./output.ts";
import { counted } from "./units.ts";

const stateOf = ({ engaged, by, since, reason }: Lever): string =>
  engaged ? `engaged since ${since} by ${by}: ${reason}` : "released";

export const leverView: View<Lever> = {
  id: ({ id }) => id,
  columns: [
    { head: "LEVER", cell: ({ engaged }) => (engaged ? "engaged" : "released") },
    { head: "SINCE", cell: ({ since }) => since ?? "-" },
    { head: "BY", cell: ({ by }) => by },
    { head: "REASON", cell: ({ reason }) => reason },
  ],
};

export const safetyView: View<z.output<typeof safetySchema>> = {
  id: () => "fleet",
  columns: [{ head: "LEVER", cell: ({ lever }) => stateOf(lever) }],
  details: ({ lever, limits, verdicts }) => [
    ["lever", stateOf(lever)],
    ["rules", verdicts.map(({ rule, verdict, text }) => `${verdict} ${rule}: ${text}`)],
    [
      "limits",
      [
        `${counted(limits.healthyCellsMin, "cell")} must stay healthy, ${limits.openCellsMin} open for placement`,
        `headroom for one cell less: ${limits.headroom}`,
        `${Number((limits.motionShareMax * 100).toPrecision(3))} % of the tenants may be in motion, ${limits.motionFloor} always`,
        `${Math.round(limits.waitAfterFailoverMs / 1000)} s of rest after a failover`,
      ],
    ],
  ],
};

export const switchView: View<GatingSwitch> = {
  id: ({ id }) => id,
  columns: [
    { head: "SWITCH", cell: ({ id }) => id },
    { head: "STATE", cell: ({ open }) => (open ? "open" : "closed") },
    {
      head: "FOR",
      cell: ({ kinds }) => (kinds.length === 0 ? "all that can wait" : kinds.join(" ")),
    },
    { head: "BY", cell: ({ by }) => by },
    { head: "SINCE", cell: ({ since }) => since },
    { head: "REASON", cell: ({ reason }) => reason },
  ],
};
