/** Why something of the table on disk was not taken. */

export type FileProblem = {
  readonly kind: "refused";
  readonly reason:
    | "corrupt"
    | "unsigned"
    | "invalid"
    | "other-fleet"
    | "older"
    | "unreadable"
    | "missing";
  readonly text: string;
};

export const refused = (reason: FileProblem["reason"], text: string): FileProblem => ({
  kind: "refused",
  reason,
  text,
});

/** What the disk does not give is as good as damaged; what is not the disk's fault is thrown on. */
export async function orUnreadable<T>(read: () => Promise<T>): Promise<T | FileProblem> {
  try {
    return await read();
  } catch (error) {
    if (!(error instanceof Error && "code" in error)) throw error;
    return refused("unreadable", error.message);
  }
}
