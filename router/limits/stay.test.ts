/** What who is refused is told of its limit, with one worker and with many. */
import { expect, test } from "vitest";
import { CellError } from "../../contract/errors.ts";
import { defaultKeyspace, parseTenantId } from "../../contract/ids.ts";
import { must } from "../../runtime/assert.ts";
import { systemClock } from "../../runtime/clock.ts";
import { createMetrics } from "../../runtime/metrics.ts";
import { systemRandom } from "../../runtime/random.ts";
import { tableOf } from "../../table/table.fixture.ts";
import { createRouterMetrics } from "../observe/metrics.ts";
import { Overload } from "./overload.ts";
import { Stay } from "./stay.ts";
import { TenantLimits } from "./tenant-limits.ts";

const subject = {
  kind: "tenant",
  keyspace: defaultKeyspace,
  tenant: must(parseTenantId("acme"), "acme"),
} as const;
const table = tableOf(1, { acme: "a 1" });
const route = must(table.lookup(subject.keyspace, subject.tenant), "route");

test.each([
  [1, "The tenant sends more than its 1 requests a second.", { limit: 1 }],
  [
    2,
    "The tenant sends more than its 1 requests a second, divided among the 2 workers of this router.",
    { limit: 1, workers: 2 },
  ],
])("of %s workers", (workers, message, details) => {
  const tenants = new TenantLimits(() => 0, 0, workers);
  tenants.follow({ tenantLimits: { default: { perSecond: 1, burst: 1 } } });
  const limits = {
    ...{ clock: systemClock, random: systemRandom, tenants, deadlineMs: 0 },
    metrics: createRouterMetrics(createMetrics()),
    overload: new Overload(systemClock, { inFlightMax: 10, lateMs: 0 }),
  };
  const enter = () => new Stay(limits).enterTenant(subject, { route });
  enter();
  const refused = (() => {
    try {
      return enter();
    } catch (error) {
      return error;
    }
  })();
  expect(refused).toBeInstanceOf(CellError);
  expect(refused).toMatchObject({ message, details });
});
