/**
 * docs/router-settings.md is written from the router's own settings, so that it cannot say another default
 * than the code has. `npm run golden` writes it.
 */
import { expect, test } from "vitest";
import { settings } from "../cli/commands/router.ts";
import { routerDefaults } from "../router/config.ts";

const opening = `# Settings of the router

<!-- Generated from cli/commands/router.ts and router/config.ts by tests/settings-page.test.ts: \`npm run golden\`. -->

What \`cellctl router\` takes beside its addresses and its table. Each may stand in the environment instead:
\`--hold-ms\` as \`CELLFLEET_HOLD_MS\`. Times are milliseconds and sizes bytes. With several workers, what is a total is
divided among them. What each limit answers when it is reached is in [error codes](errors.md).

| setting | default | |
|---|---|---|`;

test("the page of settings is true", async () => {
  const defaults = routerDefaults();
  const rows = settings.map(([flags, summary]) => {
    const [name = ""] = flags.split(" ");
    const value = defaults.get(name);
    return `| \`${name}\` | ${value === undefined ? "" : `\`${value}\``} | ${summary} |`;
  });
  expect(rows.length).toBeGreaterThan(40);
  await expect(`${[opening, ...rows].join("\n")}\n`).toMatchFileSnapshot(
    "../docs/router-settings.md",
  );
});
