/** `cellctl check --database-url`: is a database fit to be a cell's, item by item, each with its fix. */
import { CellError } from "../../contract/errors.ts";
import { loadPreflight, noteExposedPassword, type PreflightItem } from "../adoption.ts";
import { usage } from "../failures.ts";
import { type Options, text } from "../grammar.ts";
import type { View } from "../render/output.ts";
import { counted } from "../render/units.ts";
import type { Session } from "../session.ts";

const marks = { ok: "√", warn: "!", failed: "×", skipped: "-" } as const;
const roles = ["owner", "agent", "mover", "app"] as const;
type Role = (typeof roles)[number];

const itemView: View<PreflightItem> = {
  id: ({ id }) => id,
  columns: [
    { head: "", cell: ({ state }) => marks[state], state: true },
    { head: "ITEM", cell: ({ id }) => id },
    { head: "NEED", cell: ({ severity }) => severity },
    {
      head: "FOUND",
      cell: ({ text, fix, wanted }) => (fix === null ? text : `${text}; needed: ${wanted}`),
    },
    { head: "WHY", cell: ({ why }) => why, wide: true },
  ],
};

export const isRole = (raw: string): raw is Role => (roles as readonly string[]).includes(raw);

export async function checkDatabase(
  session: Session,
  reference: string,
  options: Options,
): Promise<number> {
  const role = text(options, "role") ?? "owner";
  if (!isRole(role)) throw usage(`--role "${role}": must be one of ${roles.join(", ")}`);
  await noteExposedPassword(session, reference);
  const { checkUserDatabase } = await loadPreflight();
  const items = await checkUserDatabase({
    database: { reference, env: session.io.env, signal: session.interrupted() },
    role,
    appRole: text(options, "appRole"),
  });
  await session.out.list(onePage(items), itemView);
  await tellFixes(session, items);
  const missing = items.filter(({ state }) => state === "failed");
  if (missing.length === 0) return 0;
  throw new CellError(
    "DATABASE_UNFIT",
    `${counted(missing.length, "thing")} that a cell must have: ${missing.map(({ id }) => id).join(", ")}`,
    {
      nextSteps: missing.flatMap(({ fix }) => (fix === null ? [] : [fix])),
      details: { missing: missing.map(({ id }) => id) },
    },
  );
}

/** For people: what is only advised is not among the next steps of a refusal. */
async function tellFixes(session: Session, items: readonly PreflightItem[]): Promise<void> {
  if (session.out.structured) return;
  const { printable } = await import("../render/printable.ts");
  for (const { id, why, fix } of items.filter(({ state }) => state === "warn")) {
    await session.note(`${id}: ${printable(why)}`);
    if (fix !== null) await session.note(`   ${printable(fix)}`);
  }
}

async function* onePage<T>(items: readonly T[]) {
  yield { items, next: null };
}
