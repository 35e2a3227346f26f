/**
 * Names of things in a store as the rest of the fleet hears them. Those of the first store stand alone;
 * those of any other begin with its name and a slash. Pure.
 *
 * Always true: no name of one store is a name of another: a sequence's own name (`public.orders_id_seq`)
 * has no slash unless it is quoted, and then it begins with the quote.
 */
export const nameInCell = (store: string, name: string): string =>
  store === "" ? name : `${store}/${name}`;

/** Undefined: it is in another store. */
export function nameInStore(store: string, name: string): string | undefined {
  const [, named, rest] = /^([a-z][a-z0-9-]*)\/(.*)$/s.exec(name) ?? [];
  if ((named ?? "") !== store) return undefined;
  return rest ?? name;
}
