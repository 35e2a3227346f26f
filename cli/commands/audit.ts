/** `cellctl audit …`: who did what and why; and whether the record was tampered with. */
import { auditEntrySchema, auditVerdictSchema } from "../../contract/control-api.ts";
import { isoTime } from "../../runtime/clock.ts";
import { CliError } from "../failures.ts";
import { type Register, text } from "../grammar.ts";
import { parseLimit } from "../limit.ts";
import { auditVerdictView, auditView } from "../render/views.ts";
import { parseSince } from "../since.ts";

export const register: Register = (noun, bind) => {
  bind(
    noun
      .command("ls")
      .description("list entries, newest first")
      .option("--actor <name>", "only of this actor")
      .option("--object <id>", "only about this object")
      .option("--action <name>", "only of this action, such as cell.cordon")
      .option("--since <time>", "from this long ago (1h), or from this ISO time on")
      .option("--limit <rows>", "at most this many (default: all)"),
    async (session, _args, options) => {
      const api = await session.api();
      const since = text(options, "since");
      const query = {
        actor: text(options, "actor"),
        object: text(options, "object"),
        action: text(options, "action"),
        since:
          since === undefined ? undefined : isoTime(parseSince(since, session.io.clock.nowMs())),
      };
      const limit = parseLimit(options);
      await session.out.list(api.pages("/v1/audit", auditEntrySchema, { query, limit }), auditView);
      return 0;
    },
  );
  bind(
    noun.command("verify").description("check the chain of hashes from its first entry"),
    async (session) => {
      const api = await session.api();
      const verdict = await api.get("/v1/audit/verify", auditVerdictSchema, {
        patienceMs: verifyMs,
      });
      await session.out.one(verdict, auditVerdictView);
      if (!verdict.ok) {
        throw new CliError("AUDIT_BROKEN", verdict.text, {
          details: { brokenAt: verdict.brokenAt },
          nextSteps: ["cellctl audit ls -o json   (keep a copy before anything else)"],
        });
      }
      return 0;
    },
  );
};

/** A long chain takes its time to read. */
const verifyMs = 300_000;
