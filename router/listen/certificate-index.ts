/** Pure: which certificate answers a name, and which hosts it speaks for. */
import { canonicalHost, wildcardOf } from "../../runtime/tls/names.ts";

export type Named = {
  /** Its name among the files. */
  readonly name: string;
  readonly names: readonly string[];
  readonly notAfterMs: number;
};

export type CertificateIndex<One extends Named> = {
  /** By the name of a handshake; the default one where none fits or none was said. */
  readonly find: (servername: string | undefined) => One | undefined;
  readonly byDefault: One | undefined;
};

/** Of several for one name the one that lasts longest; of equals the first by name. */
export function indexCertificates<One extends Named>(
  all: readonly One[],
  defaultName: string | undefined,
): CertificateIndex<One> {
  const byName = new Map<string, One>();
  const best = [...all].sort(
    (one, other) => other.notAfterMs - one.notAfterMs || (one.name < other.name ? -1 : 1),
  );
  for (const one of best) {
    for (const name of one.names) if (!byName.has(name)) byName.set(name, one);
  }
  const byDefault = all.find(({ name }) => name === defaultName);
  return {
    byDefault,
    find: (servername) => {
      if (servername === undefined) return byDefault;
      const host = servername.toLowerCase();
      return byName.get(host) ?? byName.get(wildcardOf(host) ?? "") ?? byDefault;
    },
  };
}

/** `host` as in a request: lower case, without a port. */
export function covers({ names }: Named, host: string): boolean {
  const wanted = canonicalHost(host);
  if (wanted.startsWith("*")) return false;
  return names.includes(wanted) || names.includes(wildcardOf(wanted) ?? wanted);
}
