/** The lists of a routing table that travel whole: how a change moves them on. */
import type { DeltaBody } from "./routing-table.ts";
import type { TableLists } from "./table-checksum.ts";

type ListsChange = Pick<DeltaBody, keyof TableLists>;

/** Those that a table may do without; absent stays absent. */
export const optionalLists = ({
  globalServices,
  aliasing,
  policy,
  routerKeys,
}: {
  readonly [list in "globalServices" | "aliasing" | "policy" | "routerKeys"]?:
    | ListsChange[list]
    | undefined;
}): Partial<TableLists> => ({
  ...(globalServices === undefined ? {} : { globalServices }),
  ...(aliasing === undefined ? {} : { aliasing }),
  ...(policy === undefined ? {} : { policy }),
  ...(routerKeys === undefined ? {} : { routerKeys }),
});

/** The same object when the change brings no list. */
export function listsAfter(lists: TableLists, change: ListsChange): TableLists {
  const { tenantSources, serviceRoutes, keyspaces, cells } = change;
  const optional = optionalLists(change);
  const none = [tenantSources, serviceRoutes, keyspaces, cells].every((list) => list === undefined);
  if (none && Object.keys(optional).length === 0) return lists;
  return {
    ...lists,
    ...optional,
    tenantSources: tenantSources ?? lists.tenantSources,
    serviceRoutes: serviceRoutes ?? lists.serviceRoutes,
    keyspaces: keyspaces ?? lists.keyspaces,
    cells: cells ?? lists.cells,
  };
}
