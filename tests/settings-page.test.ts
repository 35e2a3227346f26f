/**
 * docs/router-settings.md is written from the router's own settings, so that it cannot say another default
 * than the code has. `npm run golden` writes it.
 */
import { expect, test } from "vitest";
import { settings } from "../cli/commands/router.ts";
import { parseRouterConfig } from "../router/config.ts";

const least = { listen: "127.0.0.1:8080", admin: "127.0.0.1:8081", table: "cells.json" };

const opening = `# Settings of the router

<!-- Generated from cli/commands/router.ts and router/config.ts by tests/settings-page.test.ts: \`npm run golden\`. -->

What \`cellctl router\` takes beside its addresses and its table. Each may stand in the environment instead:
\`--hold-ms\` as \`CELLFLEET_HOLD_MS\`. Times are milliseconds and sizes bytes. With several workers, what is a total is
divided among them. What each limit answers when it is reached is in [error codes](errors.md).

| setting | default | |
|---|---|---|`;

const nameOf = (flags: string): string => flags.split(" ")[0] ?? "";
const keyOf = (name: string): string =>
  name.slice(2).replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());

function shown(value: unknown): string {
  if (typeof value === "boolean") return value ? "`on`" : "`off`";
  if (typeof value === "number") return `\`${value}\``;
  return typeof value === "string" && value !== "" ? `\`${value}\`` : "";
}

test("the page of settings is true", async () => {
  const config: Readonly<Record<string, unknown>> = parseRouterConfig(least);
  const rows = settings.map(([flags, summary]) => {
    const name = nameOf(flags);
    return `| \`${name}\` | ${shown(config[keyOf(name)])} | ${summary} |`;
  });
  expect(rows.length).toBeGreaterThan(40);
  await expect(`${[opening, ...rows].join("\n")}\n`).toMatchFileSnapshot(
    "../docs/router-settings.md",
  );
});
