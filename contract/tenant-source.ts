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

/**
 * Signatures that a public key can check. Never `none`, and none of those with a shared secret: a key
 * that is published could be used to make them.
 */
export const tokenAlgorithms = [
  "RS256",
  "RS384",
  "RS512",
  "PS256",
  "PS384",
  "PS512",
  "ES256",
  "ES384",
  "ES512",
  "EdDSA",
] as const;
export type TokenAlgorithm = (typeof tokenAlgorithms)[number];
/** Where a source names none. */
export const tokenAlgorithmsDefault: readonly TokenAlgorithm[] = [
  "RS256",
  "PS256",
  "ES256",
  "EdDSA",
];

/** `file:PATH` on the router's machine, or where the issuer publishes its keys. */
const jwksSchema = z
  .string()
  .max(2000)
  .refine((raw) => {
    if (raw.startsWith("file:")) return raw.length > "file:".length;
    const url = URL.canParse(raw) ? new URL(raw) : undefined;
    const isHttp = url?.protocol === "https:" || url?.protocol === "http:";
    return isHttp && url.username === "" && url.password === "";
  }, "must be an http(s) URL without a password, or file:PATH");

/** A claim of a signed token (RFC 7519): believed only when the token is verified. */
export const tokenClaimSchema = z
  .strictObject({
    /** Its name; `org.id` is the member `id` of the claim `org`, if no claim has that whole name. */
    claim: z.string().min(1).max(200),
    /** `iss`, exactly. */
    issuer: z.string().min(1).max(500),
    /** One of these must be in `aud`; absent: whatever stands there. */
    audience: z
      .union([z.string().min(1).max(500), z.array(z.string().min(1).max(500)).min(1).max(20)])
      .optional(),
    /** The issuer's public keys; nothing in a token can name others. */
    jwks: jwksSchema,
    algorithms: z.array(z.enum(tokenAlgorithms)).min(1).optional(),
    /** `typ` of the token, exactly; absent: `JWT`, `at+jwt`, or none. */
    type: z.string().min(1).max(100).optional(),
    /** Where the token stands; absent: `authorization`, after `Bearer`. */
    header: z.string().min(1).max(100).optional(),
    cookie: z.string().min(1).max(100).optional(),
  })
  .refine(({ header, cookie }) => header === undefined || cookie === undefined, {
    message: "a token stands in a header or in a cookie, not in both",
  });
export type TokenClaim = z.infer<typeof tokenClaimSchema>;

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
  z.strictObject({ jwt: tokenClaimSchema, ...sourceFields }),
]);
export type TenantSource = z.infer<typeof tenantSourceSchema>;
export type TokenSource = Extract<TenantSource, { readonly jwt: unknown }>;

/** `header authorization`, `cookie session`: for people, and to tell places apart. */
export const tokenPlace = ({ header, cookie }: TokenClaim): string =>
  cookie === undefined ? `header ${(header ?? "authorization").toLowerCase()}` : `cookie ${cookie}`;

export const tokenSourceName = (jwt: TokenClaim): string =>
  `claim ${jwt.claim} of the token in ${tokenPlace(jwt)}`;
