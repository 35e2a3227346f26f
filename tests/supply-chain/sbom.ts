/**
 * The bill of materials (CycloneDX) of what is shipped: cut out of npm's bill of everything, and then
 * judged. `npm sbom --omit=dev` is not used: npm 11.19 leaves shipped packages out that a tool needs
 * too (`zod`, `yaml`, a third of `pg`), and keeps two tools.
 *
 * Always true: every package that is shipped and installed here is in it, with its version, and
 * nothing that is not. Pure: documents and packages in, document or faults out.
 */
import { z } from "zod";
import type { LockedPackage } from "./packages.ts";

const sbomSchema = z.object({
  bomFormat: z.literal("CycloneDX"),
  specVersion: z.string().regex(/^1\.[4-9]$/),
  metadata: z.object({ component: z.object({ name: z.string(), version: z.string() }) }),
  components: z.array(
    z.object({
      name: z.string(),
      version: z.string(),
      purl: z.string().startsWith("pkg:npm/"),
    }),
  ),
});

const everythingSchema = z.looseObject({
  metadata: z.looseObject({ component: z.looseObject({}) }),
  components: z.array(
    z.looseObject({ "bom-ref": z.string(), name: z.string(), version: z.string() }),
  ),
  dependencies: z.array(
    z.looseObject({ ref: z.string(), dependsOn: z.array(z.string()).optional() }),
  ),
});

/** `product`: npm calls it after the folder that it lies in. */
export function shippedBill(
  everything: unknown,
  packages: readonly LockedPackage[],
  product: { readonly name: string; readonly version: string },
): unknown {
  const bill = everythingSchema.parse(everything);
  const shipped = new Set(packages.filter(({ dev }) => !dev).map(idOf));
  const components = bill.components.filter((one) => shipped.has(`${one.name}@${one.version}`));
  const own = `${product.name}@${product.version}`;
  const kept = new Set([own, ...components.map((one) => one["bom-ref"])]);
  const component = { ...bill.metadata.component, name: product.name, type: "application" };
  return {
    ...bill,
    metadata: { ...bill.metadata, component },
    components,
    dependencies: bill.dependencies
      .filter(({ ref }) => kept.has(ref))
      .map((one) => ({ ...one, dependsOn: (one.dependsOn ?? []).filter((ref) => kept.has(ref)) })),
  };
}

export function sbomFaults(document: unknown, packages: readonly LockedPackage[]): string[] {
  const parsed = sbomSchema.safeParse(document);
  if (!parsed.success) {
    return parsed.error.issues.map(({ path, message }) => `${path.join(".")}: ${message}`);
  }
  const listed = new Set(parsed.data.components.map(({ name, version }) => `${name}@${version}`));
  const needed = packages.filter(({ dev, installed }) => !dev && installed).map(idOf);
  if (needed.length === 0) return ["no shipped package is installed: there is nothing to check"];
  const known = new Set(packages.filter(({ dev }) => !dev).map(idOf));
  return [
    ...needed.filter((id) => !listed.has(id)).map((id) => `missing in the bill: ${id}`),
    ...[...listed]
      .filter((id) => !known.has(id))
      .map((id) => `in the bill, not in the lock: ${id}`),
  ];
}

const idOf = ({ name, version }: LockedPackage): string => `${name}@${version}`;
