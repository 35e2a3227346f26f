/**
 * A router asks once more about an answer that took longer than the lease that it carries: does this
 * cell still own the key, under a live lease, now? Nothing is admitted and nothing is asked of the
 * application; the question carries the headers, and the signature, of the request that was answered.
 *
 * What must always be true: the answer says no more than what this very moment's memory of ownership
 * and lease supports, and only to a router of the fleet.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { CellError } from "../../contract/errors.ts";
import { confirmAgain, confirmPath, headers } from "../../contract/headers.ts";
import { headerValues } from "../../contract/raw-headers.ts";
import { checkSignature, type EntryOptions, outcomeUnknown } from "./entry.ts";
import { decideConfirmationOf, onlyValue, parseAsked } from "./passage.ts";

/** No client can say so through a router, so that an application may have this path itself. */
export const isConfirmAgain = ({ url, method, rawHeaders }: IncomingMessage): boolean =>
  url?.endsWith(confirmPath) === true &&
  method === "GET" &&
  headerValues(rawHeaders, headers.confirm)[0] === confirmAgain;

/** Returns why it was refused. */
export async function answerAgain(
  options: EntryOptions,
  req: IncomingMessage,
  res: ServerResponse,
): Promise<CellError | undefined> {
  const valuesOf = (name: string) => headerValues(req.rawHeaders, name);
  const asked = parseAsked(valuesOf);
  const unsigned = await checkSignature(options, asked, valuesOf);
  if (unsigned !== undefined) return new CellError("ROUTER_SIGNATURE_INVALID", `${unsigned}.`);
  if (onlyValue(valuesOf, headers.cell) !== options.view().cell) {
    return outcomeUnknown("another cell was asked about it");
  }
  const confirmation = decideConfirmationOf(asked, options.view());
  if (confirmation.kind === "unknown") return outcomeUnknown(confirmation.reason);
  res.writeHead(204, [headers.confirm, confirmation.header]);
  res.end();
  return undefined;
}
