/**
 * Where does a tenant live? Answered from the signed routing table that this agent follows, so also
 * while the control plane is gone and after a restart without it: for workers, webhooks and cron jobs,
 * whose work does not come through a router.
 */
import { CellError } from "../../contract/errors.ts";
import {
  type CellId,
  defaultKeyspace,
  type KeyspaceName,
  parseKeyspaceName,
  parseTenantId,
  type TenantId,
} from "../../contract/ids.ts";
import { tenantKey } from "../../contract/placement-key.ts";
import type { RoutedCell } from "../../contract/routing-table.ts";
import { defaultService } from "../../contract/service-route.ts";
import type { TableState } from "../../contract/table-state.ts";
import type { Placement } from "./placement.ts";

export type Resolved = {
  readonly tenant: string;
  readonly keyspace: string;
  readonly key: string;
  readonly cell: string;
  /** Null: no placement names the tenant; the cell that is being adopted takes everything. */
  readonly epoch: number | null;
  readonly state: string;
  /** It lives in this agent's cell, and the cell's database says so too. */
  readonly here: boolean;
  /** Of the service that was asked for. */
  readonly endpoints: readonly string[];
  readonly revision: number;
};

export type ResolveView = {
  /** `off`: not followed. Undefined: followed, but none has come yet. */
  readonly table: TableState | "off" | undefined;
  readonly cell: CellId;
  readonly placement: (key: string) => Placement | undefined;
};

const tenantsTold = 100;

/** `GET /resolve?tenant=ID[&keyspace=][&service=]` or `?alias=NAMESPACE:NAME`. Throws `CellError`. */
export function resolve(query: URLSearchParams, view: ResolveView): Resolved {
  const table = requireTable(view);
  const keyspaceRaw = query.get("keyspace");
  const keyspace = keyspaceRaw === null ? undefined : parseKeyspaceName(keyspaceRaw);
  if (keyspaceRaw !== null && keyspace === undefined) {
    throw new CellError("VALIDATION_FAILED", "keyspace: not the name of a keyspace.");
  }
  const wanted = readWanted(query, table, keyspace);
  const { tenant } = wanted;
  const found = table.lookup(wanted.keyspace, tenant);
  const adopted = table.lists.cells.find(({ stage = "enforce" }) => stage !== "enforce");
  if (found === undefined && adopted === undefined) {
    throw unknown(`No placement exists for tenant ${tenant} of keyspace ${wanted.keyspace}.`);
  }
  const key = found?.key ?? tenantKey(wanted.keyspace, tenant);
  const cell = found?.cell ?? adopted?.id ?? "";
  const isMine = cell === view.cell;
  const active = found === undefined || isActive(view.placement(key), found.epoch);
  return {
    ...{ tenant, keyspace: wanted.keyspace, key, cell },
    epoch: found?.epoch ?? null,
    state: found?.state ?? "active",
    here: isMine && (found?.state ?? "active") === "active" && active,
    endpoints: endpointsOf(found === undefined ? adopted : table.cell(found.cell), query),
    revision: table.revision,
  };
}

function requireTable({ table }: ResolveView): TableState {
  if (table === "off") {
    throw new CellError("TABLE_NOT_LOADED", "This agent does not follow the routing table.", {
      nextSteps: ["Start the agent with --trust-keys FILE and --state-dir DIR."],
    });
  }
  if (table !== undefined) return table;
  throw new CellError("TABLE_NOT_LOADED", "This agent has not received a routing table yet.", {
    nextSteps: ["Send the request again when the control plane has answered once."],
  });
}

type Wanted = { readonly keyspace: KeyspaceName; readonly tenant: TenantId };

function readWanted(
  query: URLSearchParams,
  table: TableState,
  keyspace: KeyspaceName | undefined,
): Wanted {
  const tenantRaw = query.get("tenant");
  const alias = query.get("alias");
  if ((tenantRaw === null) === (alias === null)) {
    throw new CellError("VALIDATION_FAILED", "Name one of tenant=ID and alias=NAMESPACE:NAME.");
  }
  if (alias !== null) return readAlias(alias, table, keyspace);
  const tenant = parseTenantId(tenantRaw ?? "");
  if (tenant === undefined) {
    throw new CellError("TENANT_INVALID", "tenant: breaks the rules for ids.");
  }
  return { keyspace: keyspace ?? defaultKeyspace, tenant };
}

function readAlias(raw: string, table: TableState, keyspace: KeyspaceName | undefined): Wanted {
  const colon = raw.indexOf(":");
  if (colon < 1) throw new CellError("VALIDATION_FAILED", "alias: must be NAMESPACE:NAME.");
  const namespace = raw.slice(0, colon);
  const targets = table
    .resolve(namespace, raw.slice(colon + 1))
    .filter((target) => keyspace === undefined || target.keyspace === keyspace);
  const [only, second] = targets;
  // The name itself may be a mail address or a key: it is not repeated.
  if (only === undefined) throw unknown(`No tenant has this name in namespace ${namespace}.`);
  if (second === undefined) return only;
  throw new CellError("TENANT_AMBIGUOUS", `The name stands for ${targets.length} tenants.`, {
    nextSteps: ["Ask with tenant=ID for one of them."],
    details: { tenants: targets.slice(0, tenantsTold).map(({ tenant }) => tenant) },
  });
}

const isActive = (placement: Placement | undefined, epoch: number): boolean =>
  placement?.state === "active" && placement.epoch === epoch;

function endpointsOf(cell: RoutedCell | undefined, query: URLSearchParams): readonly string[] {
  const name = query.get("service") ?? defaultService;
  const services = cell?.services ?? {};
  if (Object.hasOwn(services, name)) return services[name]?.endpoints ?? [];
  const [only, second] = Object.values(services);
  // As at the gate: without a name, the only service is meant.
  return query.has("service") || second !== undefined ? [] : (only?.endpoints ?? []);
}

const unknown = (message: string): CellError => new CellError("TENANT_UNKNOWN", message);
