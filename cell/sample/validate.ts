/** What a client sends, checked by pure functions before anything touches the database. */
import { AppError } from "./errors.ts";

export type NewOrder = { readonly item: string; readonly quantity: number };
export type Page = { readonly limit: number; readonly before: number | undefined };

const itemCharactersMax = 200;
const quantityMax = 1_000_000;
const limitDefault = 50;
const limitMax = 200;
const idempotencyKeyPattern = /^[\x21-\x7e]{1,255}$/;
/** Control characters and lone surrogates: PostgreSQL refuses NUL, and people cannot see the rest. */
const unfit = /\p{Cc}|\p{Cs}/u;

const invalid = (message: string): AppError =>
  new AppError(400, "VALIDATION_FAILED", message, {
    nextSteps: ['send {"item": "…", "quantity": 1}'],
  });

export function parseNewOrder(text: string): NewOrder {
  const body = parseJson(text);
  if (typeof body !== "object" || body === null || Array.isArray(body)) {
    throw invalid("the body must be a JSON object");
  }
  const item: unknown = "item" in body ? body.item : undefined;
  const quantity: unknown = "quantity" in body ? body.quantity : undefined;
  if (typeof item !== "string") throw invalid("item must be a string");
  const characters = [...item].length;
  if (characters < 1 || characters > itemCharactersMax || unfit.test(item)) {
    throw invalid(`item must have 1 to ${itemCharactersMax} characters, none of them control`);
  }
  if (
    typeof quantity !== "number" ||
    !Number.isInteger(quantity) ||
    quantity < 1 ||
    quantity > quantityMax
  ) {
    throw invalid(`quantity must be a whole number from 1 to ${quantityMax}`);
  }
  return { item, quantity };
}

export function parseIdempotencyKey(raw: string | undefined): string | undefined {
  if (raw === undefined) return undefined;
  if (idempotencyKeyPattern.test(raw)) return raw;
  throw new AppError(
    400,
    "VALIDATION_FAILED",
    "Idempotency-Key must be 1 to 255 printable ASCII characters without spaces",
  );
}

export function parsePage(limit: string | undefined, cursor: string | undefined): Page {
  const rows = limit === undefined ? limitDefault : wholeNumber(limit);
  if (rows === undefined || rows < 1 || rows > limitMax) {
    throw new AppError(400, "VALIDATION_FAILED", `limit must be from 1 to ${limitMax}`);
  }
  if (cursor === undefined) return { limit: rows, before: undefined };
  const before = wholeNumber(Buffer.from(cursor, "base64url").toString("latin1"));
  if (before === undefined) {
    throw new AppError(400, "VALIDATION_FAILED", "cursor was not made by this application");
  }
  return { limit: rows, before };
}

/** Where the next page starts; the client's own limit stays with it. */
export function nextPath(lastId: number, limit: string | undefined): string {
  const cursor = Buffer.from(String(lastId), "latin1").toString("base64url");
  return `/orders?cursor=${cursor}${limit === undefined ? "" : `&limit=${Number(limit)}`}`;
}

/** Undefined for anything but a safe whole number from 0 in plain digits. */
export function wholeNumber(raw: string): number | undefined {
  if (!/^\d{1,16}$/.test(raw)) return undefined;
  const number = Number(raw);
  return Number.isSafeInteger(number) ? number : undefined;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new AppError(400, "VALIDATION_FAILED", "the body is not JSON", {
      cause: error,
      nextSteps: ['send {"item": "…", "quantity": 1} with content-type: application/json'],
    });
  }
}
