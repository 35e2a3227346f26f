/** Feature flags and rings, for people. */
import type { z } from "zod";
import type { flagSchema, ringSchema } from "../../contract/routing-api.ts";
import type { View } from "./output.ts";

const listed = (values: readonly string[] = []): string => values.join(" ");

export const flagView: View<z.output<typeof flagSchema>> = {
  id: ({ id }) => id,
  columns: [
    { head: "FLAG", cell: ({ id }) => id },
    { head: "EVERYWHERE", cell: ({ everywhere }) => (everywhere === true ? "yes" : "no") },
    { head: "RINGS", cell: ({ rings }) => listed(rings) },
    { head: "CELLS", cell: ({ cells }) => listed(cells) },
    { head: "TENANTS", cell: ({ tenants }) => listed(tenants) },
  ],
};

export const ringView: View<z.output<typeof ringSchema>> = {
  id: ({ id }) => id,
  columns: [
    { head: "RING", cell: ({ id }) => id },
    { head: "CELLS", cell: ({ cells }) => listed(cells) },
  ],
};
