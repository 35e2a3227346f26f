/**
 * What `npm audit` said, judged: advisories of moderate severity or more in what is shipped are a
 * fault. A registry that has no such service is told apart from one that found nothing: silence must
 * never look like a clean bill.
 */
import { z } from "zod";

const severities = ["info", "low", "moderate", "high", "critical"] as const;
const refusedFrom = severities.indexOf("moderate");

const reportSchema = z.object({
  auditReportVersion: z.literal(2),
  vulnerabilities: z.record(
    z.string(),
    z.object({
      severity: z.enum(severities),
      range: z.string(),
      via: z.array(z.union([z.string(), z.object({ title: z.string(), url: z.string() })])),
    }),
  ),
});
const failureSchema = z.object({ statusCode: z.number().optional(), message: z.string() });

/** What a registry without the service answers: not there, not by this method, not made. */
const serviceMissing: readonly number[] = [404, 405, 501];

export type AuditVerdict =
  | { readonly kind: "clean"; readonly text: string }
  | { readonly kind: "unanswered"; readonly text: string }
  | { readonly kind: "faults"; readonly faults: readonly string[] };

/** `output`: what `npm audit --json` wrote. */
export function judgeAudit(output: string): AuditVerdict {
  const json = parseJson(output);
  const report = reportSchema.safeParse(json);
  if (report.success) return judgeReport(report.data);
  const failure = failureSchema.safeParse(json);
  const { statusCode, message } = failure.data ?? { message: output.slice(0, 500) };
  if (statusCode !== undefined && serviceMissing.includes(statusCode)) {
    return { kind: "unanswered", text: `audit not answered by this registry (${message})` };
  }
  return { kind: "faults", faults: [`npm audit gave no verdict: ${message}`] };
}

function judgeReport({ vulnerabilities }: z.infer<typeof reportSchema>): AuditVerdict {
  const found = Object.entries(vulnerabilities);
  const faults = found.flatMap(([name, { severity, range, via }]) => {
    if (severities.indexOf(severity) < refusedFrom) return [];
    const why = via.map((one) =>
      typeof one === "string" ? `by ${one}` : `${one.title} ${one.url}`,
    );
    return [`${severity}: ${name} ${range}: ${why.join("; ")}`];
  });
  if (faults.length > 0) return { kind: "faults", faults };
  const below = found.length === 0 ? "" : `; ${found.length} below moderate`;
  return { kind: "clean", text: `no advisory of moderate severity or more${below}` };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // npm's own words: they are quoted in the fault.
  }
}
