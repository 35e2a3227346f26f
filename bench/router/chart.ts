/**
 * Pure: a bar chart of a run as SVG, written by hand and readable on light and dark pages. Bars are
 * microseconds of CPU per request, shorter is better.
 */
import type { ProxyResult, RouterResult } from "./report.ts";

const rowHeight = 26;
const barHeight = 16;
const labelWidth = 190;
const barWidth = 430;
const valueWidth = 140;
const titleHeight = 52;
const footHeight = 40;

export function chartSvg(result: RouterResult): string {
  const rows = [...result.proxies].sort((a, b) => a.cpuUs.calm - b.cpuUs.calm);
  const most = Math.max(...rows.map(({ cpuUs }) => cpuUs.calm));
  const width = labelWidth + barWidth + valueWidth;
  const height = titleHeight + rows.length * rowHeight + footHeight;
  const machine = `${result.machine["processor"]}, Node ${result.machine["node"]}`;
  const foot = `${machine}, ${result.date.slice(0, 10)}, commit ${result.commit}`;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" aria-labelledby="title">
<title id="title">CPU per proxied request, in microseconds: ${escapeXml(rows.map(nameAndValue).join(", "))}</title>
<style>
text { font: 13px system-ui, sans-serif; fill: #24292f; }
.head { font-weight: 600; font-size: 15px; }
.small { font-size: 11px; fill: #57606a; }
.other { fill: #8c959f; }
.ours { fill: #0969da; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .small { fill: #9198a1; }
  .other { fill: #6e7681; }
  .ours { fill: #4493f8; }
}
</style>
<text class="head" x="0" y="18">CPU per request, microseconds (less is better)</text>
<text class="small" x="0" y="37">GET, 1 KiB answer, 100,000 tenants, one processor; +log: one line per request</text>
${rows.map((row, at) => bar(row, titleHeight + at * rowHeight, most)).join("\n")}
<text class="small" x="0" y="${height - 14}">${escapeXml(foot)}</text>
</svg>
`;
}

const nameAndValue = ({ name, cpuUs }: ProxyResult): string => `${name} ${cpuUs.calm.toFixed(1)}`;

function bar({ name, cpuUs, requestsPerSecond }: ProxyResult, top: number, most: number): string {
  const length = Math.max(1, (cpuUs.calm / most) * barWidth);
  const kind = name.startsWith("cellfleet") ? "ours" : "other";
  const middle = top + barHeight - 3;
  const rate = `${Math.round(requestsPerSecond / 1000)}k/s`;
  return [
    `<text x="0" y="${middle}">${escapeXml(name)}</text>`,
    `<rect class="${kind}" x="${labelWidth}" y="${top}" width="${length.toFixed(1)}" height="${barHeight}" rx="3"/>`,
    `<text x="${(labelWidth + length + 8).toFixed(1)}" y="${middle}">${cpuUs.calm.toFixed(1)} <tspan class="small">${rate}</tspan></text>`,
  ].join("\n");
}

const escapeXml = (text: string): string =>
  text.replace(/[<>&"']/g, (one) => `&#${one.charCodeAt(0)};`);
