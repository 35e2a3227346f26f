/** Does this database own the tenant in this very snapshot? What is copied from elsewhere is no export. */
import { z } from "zod";
import type { Queryable } from "../../cell/store/queryable.ts";
import { CellError } from "../../contract/errors.ts";

const stateSchema = z.object({
  /** False before the schema `cellfleet` is installed: an adopted cell in its first stage. */
  installed: z.boolean(),
  /** What this role may look at. */
  source: z.enum(["ownership", "owned_keys", "none"]),
});

export type ExpectedOwner = {
  readonly tenant: string;
  readonly cell: string;
  readonly key: string;
  readonly epoch: number;
  /** Only rows of active tenants can be seen by this role. */
  readonly mustBeActive: boolean;
};

export async function requireOwnership(client: Queryable, expected: ExpectedOwner): Promise<void> {
  const { rows } = await client.query(
    `select to_regclass('cellfleet.ownership') is not null as installed,
            case when has_table_privilege(to_regclass('cellfleet.ownership'), 'SELECT') then 'ownership'
                 when has_table_privilege(to_regclass('cellfleet.owned_keys'), 'SELECT') then 'owned_keys'
                 else 'none' end as source`,
  );
  const { installed, source } = stateSchema.parse(rows[0]);
  if (!installed) return;
  if (source === "none") {
    throw new CellError(
      "DATABASE_UNFIT",
      "the role of this database URL may not see which tenants are owned here",
      { nextSteps: ["give the URL of the application's role, of the tables' owner or the agent"] },
    );
  }
  const found = await readOwnership(client, source, expected.key);
  const fit = expected.mustBeActive ? ["active"] : ["active", "fenced"];
  if (found !== undefined && fit.includes(found.state) && found.epoch === expected.epoch) return;
  const here =
    found === undefined ? "not active here" : `${found.state} here, at epoch ${found.epoch}`;
  throw new CellError(
    "STATE_CONFLICT",
    `${expected.tenant} is ${here}; ${expected.cell} should own it at epoch ${expected.epoch}`,
    {
      nextSteps: [
        `cellctl tenant locate ${expected.tenant}`,
        "repeat: the tenant may have moved while this began",
        ...(expected.mustBeActive
          ? ["a suspended tenant needs the URL of the tables' owner: --database-url"]
          : []),
      ],
    },
  );
}

async function readOwnership(client: Queryable, source: "ownership" | "owned_keys", key: string) {
  const { rows } = await client.query<{ state: string; epoch: string }>(
    source === "ownership"
      ? "select state, epoch from cellfleet.ownership where key = $1"
      : "select 'active' as state, epoch from cellfleet.owned_keys where key = $1",
    [key],
  );
  const [row] = rows;
  return row === undefined ? undefined : { state: row.state, epoch: Number(row.epoch) };
}
