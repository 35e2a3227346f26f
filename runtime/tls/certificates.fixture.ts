/** For tests only: an authority and certificates of its own making, written byte by byte (X.509, DER). */
import {
  createHash,
  createPrivateKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
} from "node:crypto";
import { isIP } from "node:net";

export type Issued = { readonly cert: string; readonly key: string };
export type Authority = {
  /** PEM, for whoever shall trust it. */
  readonly cert: string;
  /** Names and addresses; `days` may be negative: then it is over already. */
  readonly issue: (names: readonly string[], days?: number) => Issued;
};

const der = (tag: number, ...parts: readonly Buffer[]): Buffer => {
  const body = Buffer.concat(parts);
  const size = body.length;
  const length =
    size < 128 ? [size] : size < 256 ? [0x81, size] : [0x82, Math.floor(size / 256), size % 256];
  return Buffer.concat([Buffer.from([tag, ...length]), body]);
};
const sequence = (...parts: readonly Buffer[]) => der(0x30, ...parts);
const oid = (hex: string) => der(0x06, Buffer.from(hex, "hex"));
const octets = (body: Buffer) => der(0x04, body);
const ecdsaSha256 = sequence(oid("2a8648ce3d040302"));
const commonName = (name: string) =>
  sequence(der(0x31, sequence(oid("550403"), der(0x0c, Buffer.from(name)))));
const time = (ms: number) =>
  der(0x18, Buffer.from(`${new Date(ms).toISOString().replace(/[-:T]|\.\d+/g, "")}`));
const extension = (id: string, isCritical: boolean, body: Buffer) =>
  sequence(oid(id), ...(isCritical ? [der(0x01, Buffer.from([0xff]))] : []), octets(body));

const alternative = (name: string): Buffer =>
  isIP(name) === 4
    ? der(0x87, Buffer.from(name.split(".").map(Number)))
    : der(0x82, Buffer.from(name));

type Wanted = {
  readonly subject: string;
  readonly issuer: string;
  readonly publicKey: KeyObject;
  readonly signer: KeyObject;
  readonly names: readonly string[];
  readonly days: number;
  readonly isAuthority: boolean;
};

const dayMs = 86_400_000;

function certificate(wanted: Wanted): string {
  const spki = wanted.publicKey.export({ type: "spki", format: "der" });
  const serial = createHash("sha256").update(spki).update(wanted.names.join()).digest();
  const endMs = Date.now() + wanted.days * dayMs;
  const extensions = [
    extension(
      "551d13",
      true,
      sequence(...(wanted.isAuthority ? [der(0x01, Buffer.from([0xff]))] : [])),
    ),
    ...(wanted.names.length === 0
      ? []
      : [extension("551d11", false, sequence(...wanted.names.map(alternative)))]),
  ];
  const body = sequence(
    der(0xa0, der(0x02, Buffer.from([2]))),
    der(0x02, Buffer.concat([Buffer.from([1]), serial.subarray(0, 15)])),
    ecdsaSha256,
    commonName(wanted.issuer),
    sequence(time(Math.min(endMs, Date.now()) - dayMs), time(endMs)),
    commonName(wanted.subject),
    spki,
    der(0xa3, sequence(...extensions)),
  );
  const signature = sign("sha256", body, wanted.signer);
  const whole = sequence(body, ecdsaSha256, der(0x03, Buffer.from([0]), signature));
  const lines = whole.toString("base64").match(/.{1,64}/g) ?? [];
  return `-----BEGIN CERTIFICATE-----\n${lines.join("\n")}\n-----END CERTIFICATE-----\n`;
}

const newKey = () => {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const key = privateKey.export({ type: "pkcs8", format: "pem" }).toString();
  return { publicKey, key, signer: createPrivateKey(key) };
};

export function createAuthority(issuer: string = "A test's authority"): Authority {
  const own = newKey();
  const cert = certificate({
    ...{ subject: issuer, issuer, publicKey: own.publicKey, signer: own.signer },
    ...{ names: [], days: 30, isAuthority: true },
  });
  return {
    cert,
    issue: (names, days = 10) => {
      const { publicKey, key } = newKey();
      const subject = names[0] ?? "nobody";
      const wanted = { subject, issuer, publicKey, signer: own.signer, names, days };
      return { cert: certificate({ ...wanted, isAuthority: false }), key };
    },
  };
}
