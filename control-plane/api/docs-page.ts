/**
 * `/docs`: the OpenAPI document as one readable page, without a script and without a foreign host.
 * Every text is escaped: names and descriptions are data here.
 */
import { z } from "zod";

const operationSchema = z.object({
  summary: z.string().default(""),
  description: z.string().default(""),
  tags: z.array(z.string()).default([]),
  parameters: z
    .array(
      z.object({
        name: z.string(),
        in: z.string(),
        required: z.boolean().default(false),
        schema: z.unknown(),
      }),
    )
    .default([]),
  requestBody: z.unknown().optional(),
  responses: z.record(z.string(), z.unknown()).default({}),
});
const documentSchema = z.object({
  info: z.object({ title: z.string(), version: z.string() }),
  paths: z.record(z.string(), z.record(z.string(), operationSchema)).default({}),
});
type Operation = z.infer<typeof operationSchema>;
type Placed = { readonly method: string; readonly path: string; readonly operation: Operation };

export const escapeHtml = (text: string): string =>
  text.replace(/[&<>"']/g, (mark) => `&#${mark.charCodeAt(0)};`);

export function docsPage(openapi: unknown): string {
  const { info, paths } = documentSchema.parse(openapi);
  const placed = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]): Placed => ({ method, path, operation })),
  );
  const tags = [...new Set(placed.map(({ operation }) => operation.tags[0] ?? "other"))];
  const sections = tags.map((tag) => {
    const own = placed.filter(({ operation }) => (operation.tags[0] ?? "other") === tag);
    return `<section id="${escapeHtml(tag)}"><h2>${escapeHtml(tag)}</h2>${own.map(operationHtml).join("")}</section>`;
  });
  const contents = tags.map((tag) => `<a href="#${escapeHtml(tag)}">${escapeHtml(tag)}</a>`);
  return `<!doctype html><html lang="en"><meta charset="utf-8"><title>${escapeHtml(info.title)}</title>
<meta name="viewport" content="width=device-width"><style>${style}</style>
<h1>${escapeHtml(info.title)} ${escapeHtml(info.version)}</h1>
<p>Send <code>Authorization: Bearer TOKEN</code>. Every mutation takes an <code>Idempotency-Key</code> header,
and <code>reason</code> and <code>dryRun</code> in its body. The same as data: <a href="/openapi.json">/openapi.json</a>.</p>
<nav>${contents.join(" ")}</nav>${sections.join("\n")}</html>`;
}

function operationHtml({ method, path, operation }: Placed): string {
  const rows = operation.parameters.map(
    (one) =>
      `<tr><td><code>${escapeHtml(one.name)}</code></td><td>${escapeHtml(one.in)}${one.required ? ", required" : ""}</td><td>${schemaHtml(one.schema)}</td></tr>`,
  );
  const body = contentSchema(operation.requestBody);
  const answers = Object.entries(operation.responses).filter(([status]) => status !== "default");
  return `<article><h3><b>${escapeHtml(method.toUpperCase())}</b> <code>${escapeHtml(path)}</code></h3>
<p>${escapeHtml(operation.summary)} ${escapeHtml(operation.description)}</p>
${rows.length === 0 ? "" : `<table>${rows.join("")}</table>`}
${body === undefined ? "" : `<details><summary>Body</summary>${schemaHtml(body)}</details>`}
${answers.map(([status, answer]) => `<details><summary>Answer ${escapeHtml(status)}</summary>${schemaHtml(contentSchema(answer))}</details>`).join("")}
</article>`;
}

const contentHolder = z.object({
  content: z.object({ "application/json": z.object({ schema: z.unknown() }) }),
});

const contentSchema = (holder: unknown): unknown =>
  contentHolder.safeParse(holder).data?.content["application/json"].schema;

const schemaHtml = (schema: unknown): string =>
  `<pre>${escapeHtml(JSON.stringify(schema ?? {}, null, 2))}</pre>`;

const style = `body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
code,pre{font:13px/1.45 ui-monospace,monospace}pre{background:#f4f5f7;padding:.7rem;overflow:auto;border-radius:4px}
article{border-top:1px solid #d8dce1;padding:.3rem 0 1rem}h3 b{display:inline-block;min-width:4.5rem;color:#0a5}
td{padding:.15rem .9rem .15rem 0;vertical-align:top}nav a{margin-right:1rem}summary{cursor:pointer}
@media(prefers-color-scheme:dark){body{background:#14171a;color:#e6e8ea}pre{background:#20252a}article{border-color:#3a4148}a{color:#7ab7ff}}`;
