import { describe, test } from "vitest";
import { hostAccessText, settingsText } from "./settings.ts";

const server = { name: "cell-01", port: 5555, durable: true };

describe("the settings of a local server", () => {
  test("hold nothing that an older version would refuse to start with", ({ expect }) => {
    const old = settingsText({ ...server, major: 16 });
    expect(old).not.toMatch(/io_method|max_active_replication_origins/);
    expect(settingsText({ ...server, major: 18 })).toMatch(/io_method = 'sync'/);
  });

  test("are open on the loopback address only, and durable unless asked otherwise", ({
    expect,
  }) => {
    const text = settingsText({ ...server, major: 18 });
    expect(text).toContain("listen_addresses = '127.0.0.1'");
    expect(text).not.toContain("fsync");
    expect(settingsText({ ...server, major: 18, durable: false })).toContain("fsync = 'off'");
    expect(hostAccessText).not.toMatch(/trust|0\.0\.0\.0/);
  });

  test("a quote in a name stays inside its text", ({ expect }) => {
    expect(settingsText({ ...server, name: "o'b", major: 18 })).toContain("cluster_name = 'o''b'");
  });
});
