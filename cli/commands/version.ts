/** `cellctl version`: of this tool, and of the fleet it would speak to. */
import type { z } from "zod";
import { statusSchema } from "../../contract/control-api.ts";
import { release } from "../../contract/release.ts";
import { contractVersion } from "../../contract/version.ts";
import type { Register } from "../grammar.ts";
import type { View } from "../render/output.ts";
import type { Session } from "../session.ts";
import type { versionSchema } from "../shapes.ts";

type Version = z.infer<typeof versionSchema>;

const versionView: View<Version> = {
  id: (version) => version.release,
  columns: [{ head: "RELEASE", cell: (version) => version.release }],
  details: (version) => [
    ["cellctl", version.release],
    ["contract", String(version.contract)],
    ["node", version.node],
    ["fleet", version.fleet ?? "none answers"],
  ],
};

export const register: Register = (noun, bind) => {
  bind(
    noun.option("--client", "only of this tool, without asking a fleet"),
    async (session, _args, options) => {
      const version = {
        release,
        contract: contractVersion,
        node: session.io.nodeVersion,
        fleet: options["client"] === true ? null : await fleetRelease(session),
      };
      await session.out.one(version, versionView);
      return 0;
    },
  );
};

/** A fleet that does not answer is no reason not to say one's own version. */
async function fleetRelease(session: Session): Promise<string | null> {
  try {
    const api = await session.api();
    return (await api.get("/v1/status", statusSchema)).release;
  } catch {
    return null;
  }
}
