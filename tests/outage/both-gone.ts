/**
 * A cell and a partner of it die together: who has a copy gets the tenants, the others are UNAVAILABLE with
 * the reason and the way out, and nobody guesses. A person decides, because two at once look like bad eyes.
 */
import { failoverPlanSchema, type RpoReport } from "../../contract/failover-api.ts";
import { createRecorder } from "../../history/recorder.ts";
import { systemClock } from "../../runtime/clock.ts";
import { type TestFleet, until } from "../fleet.ts";
import { startOpenLoad } from "../moves/open-load.ts";
import { refusedOf } from "./control-plane-gone.ts";
import { openFleetClient, routerOrigins } from "./fleet-client.ts";
import { killCell } from "./harm.ts";
import { isServed, reported, settle } from "./settled.ts";

export type BothGoneReport = {
  /** Gates that kept the control plane from doing it by itself. */
  readonly held: readonly string[];
  /** Cells that it took over by itself. */
  readonly begun: readonly string[];
  readonly totals: RpoReport["totals"];
  /** Adopted ones that are served. */
  readonly served: readonly string[];
  readonly notServed: readonly string[];
  /** Of each unavailable tenant: what its customers and its operators are told. */
  readonly unavailable: ReadonlyArray<{
    readonly tenant: string;
    readonly answer: string;
    readonly located: string;
  }>;
  readonly othersRefused: readonly string[];
};

const run = "both";
const dead = "cell-02";
const partner = "cell-03";
const servedWithinMs = 120_000;
const heldMs = 12_000;

export async function bothGone(
  fleet: TestFleet,
  options: {
    readonly tenants: number;
    readonly writesPerSecond: number;
    readonly say: (line: string) => void;
  },
): Promise<BothGoneReport> {
  const { say } = options;
  const client = await openFleetClient(fleet);
  const { homes, tenants } = await settle(fleet, client, options);
  const recorder = createRecorder({ clock: systemClock, run, write: () => {} });
  const load = startOpenLoad({
    ...{ recorder, run, router: await routerOrigins(fleet) },
    streams: [{ tenants, perSecond: options.writesPerSecond }],
  });
  try {
    await until("every tenant is written to", () => isServed(load, tenants), servedWithinMs);
    const killedMs = systemClock.monotonicMs();
    await Promise.all([killCell(fleet, dead), killCell(fleet, partner)]);
    say(`${dead} and ${partner} killed`);
    await systemClock.sleep(heldMs);
    // Whichever was seen to die first may have begun by itself, before the second looked gone.
    const begun = (await client.failovers()).map(({ cell }): string => cell);
    const held = begun.includes(dead) ? [] : await beginPast(fleet);
    say(`begun by itself: ${begun.join(", ") || "none"}; held by ${held.join(", ") || "nothing"}`);
    const failover = await reported(client, dead, servedWithinMs);
    say(`${failover.id} ${failover.step}: ${failover.headline}`);
    const { report } = failover;
    if (report === null) throw new Error("no report");
    const lost = new Set(report.unavailable.map(({ key }) => key.split("/").at(-1)));
    const adopted = tenants.filter((one) => homes.get(one) === dead && !lost.has(one));
    const sinceMs = systemClock.monotonicMs();
    const served = () => isServed(load, adopted, sinceMs);
    await until("adopted tenants are served", served, servedWithinMs).catch(() => {});
    const mine = tenants.filter((one) => homes.get(one) !== "cell-01");
    return {
      ...{ held, begun, totals: report.totals },
      served: adopted.filter((one) => isServed(load, [one], sinceMs)),
      notServed: adopted.filter((one) => !isServed(load, [one], sinceMs)),
      unavailable: await Promise.all(
        tenants
          .filter((one) => lost.has(one))
          .map(async (tenant) => {
            const { status, text } = await fleet.ask(tenant, "GET", "/orders");
            const { stdout, stderr: told } = await fleet.cli("tenant", "locate", tenant);
            return { tenant, answer: `${status} ${text}`, located: `${stdout}${told}` };
          }),
      ),
      othersRefused: refusedOf(load, killedMs, mine),
    };
  } finally {
    await load.close();
    await client.close();
  }
}

/** A person goes past each gate that is closed, by its name. */
async function beginPast(fleet: TestFleet): Promise<string[]> {
  const held = await closedGates(fleet);
  const past = held.flatMap((gate) => ["--override", gate]);
  const about = ["--reason", "both are lost", "--allow-data-loss", "--confirm", dead, "--no-wait"];
  const { code, stderr } = await fleet.cli("failover", "start", dead, ...past, ...about);
  if (code !== 0) throw new Error(`failover start ended with ${code}: ${stderr}`);
  return held;
}

async function closedGates(fleet: TestFleet): Promise<string[]> {
  const { stdout } = await fleet.cli("failover", "plan", dead, "-o", "json");
  const json: unknown = JSON.parse(stdout);
  const { gates } = failoverPlanSchema.parse(
    typeof json === "object" && json !== null && "plan" in json ? json.plan : json,
  );
  return gates
    .filter(({ name, verdict }) => verdict === "block" && name !== "lag")
    .map(({ name }) => name);
}
