/** Where in a request its tenant is named: an ordered list in the routing rules. */
import { z } from "zod";
import { aliasNamespaceSchema } from "./alias.ts";
import { keyspaceNameSchema } from "./ids.ts";

/**
 * What all sources have. With `alias` the value found is no tenant id but a name in that namespace
 * (a custom domain, an API key): it is looked up by its hash, and counts as absent when it is unknown.
 */
const sourceFields = {
  keyspace: keyspaceNameSchema.optional(),
  alias: aliasNamespaceSchema.optional(),
};

/** Where in a request the tenant is named. The first source of the list that is present wins; two that disagree are a 400. */
export const tenantSourceSchema = z.union([
  z.strictObject({ header: z.string().min(1).max(100), ...sourceFields }),
  z.strictObject({
    /** `{tenant}.example.com`; `{tenant}` stands for one or more labels. */
    host: z.string().max(253).includes("{tenant}"),
    ...sourceFields,
  }),
  z.strictObject({
    /** `/t/{tenant}`; with `strip` the prefix is not passed on. */
    path: z.string().max(200).startsWith("/").includes("{tenant}"),
    strip: z.boolean().optional(),
    ...sourceFields,
  }),
  z.strictObject({ cookie: z.string().min(1).max(100), ...sourceFields }),
  z.strictObject({ query: z.string().min(1).max(100), ...sourceFields }),
]);
export type TenantSource = z.infer<typeof tenantSourceSchema>;
