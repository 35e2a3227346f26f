/**
 * Looks up in the adopters' databases whether writes are there whose position does not prove it: by the
 * record that the application writes, with each effect, of the `Idempotency-Key` it was asked with. Reads
 * only. A database that cannot be asked leaves its writes unasked.
 */
import type pg from "pg";
import { cellIdSchema } from "../../../contract/ids.ts";
import type { IdempotencyTable } from "../../../contract/routing-table.ts";
import { withMover } from "../../../moving/connection.ts";
import { errorFields } from "../../../runtime/log.ts";
import type { Finding, RpoFacts, Suspect } from "../../core/failover/rpo-facts.ts";
import { findingOf } from "../../core/failover/rpo-finding.ts";
import { cellStores } from "../../store/fleet-store.ts";
import type { ReportWorld } from "./report.ts";

const statementMsMax = 10_000;
/** Of one question. */
const batch = 5000;

type Place = {
  readonly store: string;
  readonly mover: string;
  readonly records: IdempotencyTable;
  readonly keyColumn: string;
};

export async function findRecords(
  world: ReportWorld,
  facts: RpoFacts,
  suspects: readonly Suspect[],
): Promise<(suspect: Suspect) => Finding> {
  const askable = suspects.filter(({ write }) => write.idempotencyKey !== undefined);
  const owners = [...new Set(askable.flatMap(({ owner }) => owner ?? []))];
  const present = new Map<string, Answers>();
  for (const owner of owners) {
    const mine = askable.filter((one) => one.owner === owner);
    try {
      const found = await askOwner(world, facts.cell, owner, mine);
      present.set(owner, found);
    } catch (error) {
      const said = { failover: facts.failover, cell: owner, error: "", ...errorFields(error) };
      world.log.event("failover.unasked", said, "warn");
    }
  }
  return (suspect) => {
    const answers = present.get(suspect.owner ?? "");
    if (suspect.write.idempotencyKey === undefined || answers === undefined) return "unasked";
    const name = nameOf(suspect);
    const found = [...answers].flatMap(([store, names]) => (names.has(name) ? [store] : []));
    return findingOf(suspect.stores, { asked: [...answers.keys()], found });
  };
}

/** Of each store that was asked, whose records are there. */
type Answers = ReadonlyMap<string, ReadonlySet<string>>;

const nameOf = ({ write }: Suspect): string => `${write.tenant}\n${write.idempotencyKey}`;

/** Only stores that say where their records are. */
async function askOwner(
  world: ReportWorld,
  origin: string,
  owner: string,
  suspects: readonly Suspect[],
): Promise<Answers> {
  const places = await placesOf(world, origin, owner);
  const answers = new Map<string, ReadonlySet<string>>();
  for (const { store, mover, records, keyColumn } of places) {
    const found = new Set<string>();
    const login = { cell: cellIdSchema.parse(owner), store, url: await world.resolve(mover) };
    await withMover(login, { name: "cellfleet report", statementMsMax }, async (client) => {
      for (let at = 0; at < suspects.length; at += batch) {
        const page = suspects.slice(at, at + batch);
        for (const name of await ask(client, records, keyColumn, page)) found.add(name);
      }
    });
    answers.set(store, found);
  }
  return answers;
}

/** The origin says where its records are; the tables of whoever has its rows now are the same. */
async function placesOf(
  { database }: ReportWorld,
  origin: string,
  owner: string,
): Promise<readonly Place[]> {
  const told = await cellStores(database.read, origin);
  const theirs = await cellStores(database.read, owner);
  return Object.entries(told).flatMap(([store, { idempotency, keyColumn }]) => {
    const mover = theirs[store]?.mover;
    return idempotency === undefined || mover === undefined
      ? []
      : [{ store, mover, records: idempotency, keyColumn }];
  });
}

async function ask(
  client: pg.Client,
  { table, tenantColumn, keyColumn }: IdempotencyTable,
  storeKeyColumn: string,
  suspects: readonly Suspect[],
): Promise<string[]> {
  const name = (table.includes(".") ? table : `public.${table}`)
    .split(".")
    .map((part) => client.escapeIdentifier(part))
    .join(".");
  const tenant = client.escapeIdentifier(tenantColumn ?? storeKeyColumn);
  const key = client.escapeIdentifier(keyColumn);
  const { rows } = await client.query<{ tenant: string; key: string }>(
    `select w.tenant, w.key from unnest($1::text[], $2::text[]) as w(tenant, key)
      where exists (select from ${name} r where r.${tenant}::text = w.tenant and r.${key}::text = w.key)`,
    [suspects.map(({ write }) => write.tenant), suspects.map(({ write }) => write.idempotencyKey)],
  );
  return rows.map((row) => `${row.tenant}\n${row.key}`);
}
