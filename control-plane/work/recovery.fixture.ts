/** For tests of recoveries: cells that remember what they applied, and say so when they are asked. */
import type { JsonClient } from "../../runtime/http-client.ts";
import { type AgentChange, callAgent } from "../control.fixture.ts";

export type Entry = { readonly key: string; readonly state: string; readonly epoch: number };
export const entry = (tenant: string, state: string, epoch: number): Entry => ({
  key: `default/tenant/${tenant}`,
  state,
  epoch,
});

export class RecordedCell {
  readonly id: string;
  readonly client: JsonClient;
  readonly keys = new Map<string, Entry>();
  applied = 0;
  grant = 0;

  constructor(id: string, client: JsonClient, entries: readonly Entry[], applied: number) {
    this.id = id;
    this.client = client;
    this.applied = applied;
    for (const one of entries) this.keys.set(one.key, one);
  }

  async call(change: AgentChange = {}) {
    const answer = await callAgent(this.client, this.id, {
      appliedRevision: this.applied,
      epochMax: Math.max(0, ...[...this.keys.values()].map(({ epoch }) => epoch)),
      ...change,
      database: { grant: this.grant, ...change.database },
    });
    for (const { key, state, epoch } of answer.changes) {
      // As its database does: no epoch falls.
      if (epoch >= (this.keys.get(key)?.epoch ?? 0)) this.keys.set(key, { key, state, epoch });
    }
    this.applied = Math.max(this.applied, answer.revision);
    if (answer.lease !== undefined) this.grant = answer.lease.grant;
    return answer;
  }

  report() {
    return this.call({ ownership: { entries: [...this.keys.values()], last: true } });
  }

  owns(tenant: string): boolean {
    return this.keys.get(`default/tenant/${tenant}`)?.state === "active";
  }
}
