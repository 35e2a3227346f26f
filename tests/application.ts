/**
 * The application that the end-to-end tests run in the cells: the sample, or what CELLFLEET_TEST_APP names.
 * The promises are the fleet's, so every test that asks for one must hold for both.
 */

type Application = {
  /** The table that an order's text stands in. */
  readonly table: string;
  readonly keyColumn: string;
  readonly valueColumn: string;
  /** One row of the tenant $1, past every gate. */
  readonly insert: string;
};

const sample: Application = {
  table: "orders",
  keyColumn: "tenant_id",
  valueColumn: "item",
  insert: "insert into orders (tenant_id, item, quantity) values ($1, 'round', 1)",
};

const shop: Application = {
  table: "order_lines",
  keyColumn: "account_id",
  valueColumn: "item",
  insert:
    "insert into order_lines (account_id, order_id, item, quantity) values ($1, 1, 'round', 1)",
};

export const testApplicationFile = process.env["CELLFLEET_TEST_APP"];
export const testApplication = testApplicationFile?.includes("shop") === true ? shop : sample;
