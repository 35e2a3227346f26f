/** Thrown to roll back a turn of an operation: nothing of it stays unless all of it does. */
export class Abandoned extends Error {
  readonly why: "raced" | "deposed";
  constructor(why: "raced" | "deposed") {
    super(why);
    this.why = why;
  }
}
