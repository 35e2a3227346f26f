/**
 * What can go wrong in `cellctl` itself, beside the error table of the contract: these codes never
 * cross the wire. Each has an exit code (design of the CLI, §1.3); scripts branch on both.
 */
import { dirname } from "node:path";
import type { ErrorCode } from "../contract/errors.ts";
import { quoted } from "./quoted.ts";

export const cliErrorTable = {
  USAGE: { exit: 64, meaning: "The command line is not one that cellctl understands." },
  NOT_CONFIRMED: {
    exit: 64,
    meaning: "The command destroys something, and nobody confirmed it by name or with --yes.",
  },
  FILE_UNREADABLE: { exit: 64, meaning: "A file named on the command line cannot be read." },
  FLEET_NOT_FOUND: {
    exit: 69,
    meaning: "Neither a flag, the environment, a context nor a data folder names a fleet.",
  },
  SUPERVISOR_UNREACHABLE: {
    exit: 69,
    meaning: "The supervisor of the local fleet does not answer.",
  },
  TOKEN_MISSING: { exit: 77, meaning: "The fleet is known, but there is no token to ask it with." },
  CONTEXT_UNKNOWN: {
    exit: 78,
    meaning: "There is no context of this name in the configuration file.",
  },
  CHECK_FAILED: { exit: 1, meaning: "At least one check of `cellctl check` failed." },
  LINT_FAILED: {
    exit: 1,
    meaning: "`cellctl route lint` found endpoints whose requests do not say whose they are.",
  },
  IMPORT_PARTIAL: {
    exit: 1,
    meaning:
      "A file was applied up to a call that was refused; sending it again goes on from there.",
  },
  QUERY_INCOMPLETE: {
    exit: 1,
    meaning: "Rows of at least one cell are missing in the answer to a question.",
  },
  AUDIT_BROKEN: {
    exit: 3,
    meaning: "The audit chain does not verify: an entry was changed or removed.",
  },
  KIND_UNKNOWN: { exit: 5, meaning: "There is nothing of this name to explain." },
  WAIT_TIMEOUT: { exit: 124, meaning: "--timeout passed; the operation goes on without us." },
  DETACHED: { exit: 130, meaning: "Interrupted by Ctrl-C; an operation that was started goes on." },
} as const satisfies Record<string, { readonly exit: number; readonly meaning: string }>;

export type CliErrorCode = keyof typeof cliErrorTable;

export class CliError extends Error {
  override readonly name = "CliError";
  readonly code: CliErrorCode;
  readonly nextSteps: readonly string[];
  readonly details: Readonly<Record<string, unknown>>;

  constructor(
    code: CliErrorCode,
    message: string,
    options: {
      readonly nextSteps?: readonly string[];
      readonly details?: Readonly<Record<string, unknown>>;
      readonly cause?: unknown;
    } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.nextSteps = options.nextSteps ?? [];
    this.details = options.details ?? {};
  }
}

/** Whoever mistyped a path sees what is there; a file that is there and means nothing has said why. */
export const cannotRead = (path: string, cause: unknown): CliError =>
  new CliError("FILE_UNREADABLE", `cannot read ${path}: ${String(cause)}`, {
    cause,
    nextSteps:
      cause instanceof Error && "syscall" in cause ? [`ls -l ${quoted(dirname(path))}`] : [],
  });

export const isCliErrorCode = (raw: string): raw is CliErrorCode =>
  Object.hasOwn(cliErrorTable, raw);

/** How a command failed, ready to be shown. */
export type Failure = {
  readonly code: ErrorCode | CliErrorCode;
  readonly exit: number;
  readonly message: string;
  /** False: nothing was changed. Undefined: that is not known, or something goes on. */
  readonly changed: false | undefined;
  readonly details: Readonly<Record<string, unknown>>;
  readonly nextSteps: readonly string[];
};

/** Something may have been changed or goes on; or nothing was asked to be changed, only judged. */
const notAboutChange: readonly CliErrorCode[] = [
  "WAIT_TIMEOUT",
  "DETACHED",
  "CHECK_FAILED",
  "AUDIT_BROKEN",
  "QUERY_INCOMPLETE",
  "IMPORT_PARTIAL",
];

export function cliFailure(error: CliError): Failure {
  return {
    code: error.code,
    exit: cliErrorTable[error.code].exit,
    message: error.message,
    changed: notAboutChange.includes(error.code) ? undefined : false,
    details: error.details,
    nextSteps: error.nextSteps,
  };
}

export const usage = (message: string, ...nextSteps: string[]): CliError =>
  new CliError("USAGE", message, { nextSteps });
