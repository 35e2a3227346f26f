/** Pure: what stands in observability/: alerts, their tests, every expression, and the metrics that each names. */
import { parse } from "yaml";
import { z } from "zod";

const ruleSchema = z.object({
  record: z.string().optional(),
  alert: z.string().optional(),
  expr: z.string(),
  for: z.string().optional(),
  labels: z.record(z.string(), z.string()).optional(),
  annotations: z.object({ summary: z.string(), runbook_url: z.string() }).optional(),
});
const rulesSchema = z.object({
  groups: z.array(z.object({ name: z.string(), rules: z.array(ruleSchema) })),
});
export type Rule = z.infer<typeof ruleSchema>;

export const parseRules = (text: string): Rule[] =>
  rulesSchema.parse(parse(text)).groups.flatMap(({ rules }) => rules);

const caseSchema = z.object({ alertname: z.string(), exp_alerts: z.array(z.unknown()) });
const testsSchema = z.object({
  tests: z.array(z.object({ alert_rule_test: z.array(caseSchema) })),
});

export type AlertCases = { readonly fires: number; readonly rests: number };

/** By alert: in how many tests it must fire, and in how many it must not. */
export function parseCases(text: string): ReadonlyMap<string, AlertCases> {
  const counts = new Map<string, AlertCases>();
  for (const { alertname, exp_alerts } of testsSchema
    .parse(parse(text))
    .tests.flatMap((one) => one.alert_rule_test)) {
    const { fires, rests } = counts.get(alertname) ?? { fires: 0, rests: 0 };
    const isFiring = exp_alerts.length > 0;
    counts.set(alertname, { fires: fires + Number(isFiring), rests: rests + Number(!isFiring) });
  }
  return counts;
}

const dashboardSchema = z.object({
  uid: z.string(),
  title: z.string(),
  templating: z.object({ list: z.array(z.object({ name: z.string() })) }),
  panels: z.array(
    z.object({
      id: z.number(),
      title: z.string(),
      type: z.string(),
      gridPos: z.object({ x: z.number(), y: z.number(), w: z.number(), h: z.number() }),
      targets: z.array(z.object({ expr: z.string().min(1), refId: z.string() })).min(1),
    }),
  ),
});
export type Dashboard = z.infer<typeof dashboardSchema>;
export const parseDashboard = (text: string): Dashboard => dashboardSchema.parse(JSON.parse(text));

export type Expression = { readonly where: string; readonly expr: string };

export const expressionsOf = ({ uid, panels }: Dashboard): Expression[] =>
  panels.flatMap(({ title, targets }) =>
    targets.map(({ expr }) => ({ where: `${uid}: ${title}`, expr })),
  );

/** As Grafana fills it in: variables with everything, its interval with a minute. */
export const filledIn = (expr: string): string =>
  expr.replaceAll("$__rate_interval", "1m").replaceAll(/\$\{?\w+\}?/g, ".*");

/** Metrics of ours, and `up`; names with a colon are those of recording rules. */
export const metricsIn = (expr: string): string[] => [
  ...new Set(expr.match(/\b(?:[a-z]+:)?cellfleet_\w+(?::\w+)*|\bup(?=[{[ ])/g) ?? []),
];

/** Names of the samples that a page of metrics may have. */
export function metricsOfPage(page: string): Set<string> {
  const names = new Set<string>();
  for (const [, name = "", type] of page.matchAll(/^# TYPE (\S+) (\S+)$/gm)) {
    const endings = type === "histogram" ? ["_bucket", "_sum", "_count"] : [""];
    for (const ending of endings) names.add(`${name}${ending}`);
  }
  return names;
}

/** What is wrong with alerts as they stand on paper. */
export function alertFaults(
  rules: readonly Rule[],
  cases: ReadonlyMap<string, AlertCases>,
  hasPage: (path: string) => boolean,
): string[] {
  return rules.flatMap(({ alert, labels, annotations }) => {
    if (alert === undefined) return [];
    const page = annotations?.runbook_url ?? "";
    const { fires, rests } = cases.get(alert) ?? { fires: 0, rests: 0 };
    return [
      ...(/^docs\/runbooks\/[\w-]+\.md$/.test(page) && hasPage(page)
        ? []
        : [`${alert}: its runbook ${page} is not there`]),
      ...(labels?.["severity"] === "page" || labels?.["severity"] === "ticket"
        ? []
        : [`${alert}: its severity is neither page nor ticket`]),
      ...(fires > 0 ? [] : [`${alert}: no test in which it fires`]),
      ...(rests > 0 ? [] : [`${alert}: no test in which it does not fire`]),
    ];
  });
}
