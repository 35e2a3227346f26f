/** For tests only: an issuer of tokens, with its keys published over HTTP. */
import { createServer } from "node:http";
import { exportJWK, generateKeyPair, type JWK, type JWTPayload, SignJWT } from "jose";
import { closeServer, listenOn } from "../../table/table.fixture.ts";

type Keys = Awaited<ReturnType<typeof generateKeyPair>>;
export type IssuerKey = {
  readonly kid: string;
  readonly alg: string;
  readonly pair: Keys;
  readonly jwk: JWK;
};

export async function makeIssuerKey(kid: string, alg = "ES256"): Promise<IssuerKey> {
  const pair = await generateKeyPair(alg, { extractable: true });
  return { kid, alg, pair, jwk: { ...(await exportJWK(pair.publicKey)), kid, alg, use: "sig" } };
}

type Settings = { silent: boolean; held: Promise<void> };
export type Issuer = {
  readonly jwks: string;
  /** What is published; a test changes it. */
  readonly published: JWK[];
  /** Readings of the keys. */
  readonly reads: () => number;
  /** `silent`: 503 to everybody; answers wait for `held`. */
  readonly settings: Settings;
  readonly close: () => Promise<void>;
};

export async function startIssuer(first: readonly IssuerKey[], port = 0): Promise<Issuer> {
  const published = first.map(({ jwk }) => jwk);
  const settings: Settings = { silent: false, held: Promise.resolve() };
  let reads = 0;
  const server = createServer(async (_req, res) => {
    reads += 1;
    await settings.held;
    if (settings.silent) {
      res.writeHead(503).end();
      return;
    }
    res.setHeader("content-type", "application/json");
    res.end(JSON.stringify({ keys: published }));
  });
  const at = await listenOn(server, port);
  return {
    jwks: `http://127.0.0.1:${at}/keys`,
    published,
    reads: () => reads,
    settings,
    close: () => closeServer(server),
  };
}

export const issuerName = "https://login.test";

/** Valid for a minute, unless the claims say otherwise. */
export function tokenOf(
  key: IssuerKey,
  claims: JWTPayload,
  header: { readonly typ?: string; readonly kid?: string } = {},
): Promise<string> {
  const nowSeconds = Math.floor(performance.timeOrigin / 1000 + performance.now() / 1000);
  return new SignJWT({ iss: issuerName, exp: nowSeconds + 60, ...claims })
    .setProtectedHeader({ alg: key.alg, kid: key.kid, ...header })
    .sign(key.pair.privateKey);
}

export const inSeconds = (seconds: number): number =>
  Math.floor((performance.timeOrigin + performance.now()) / 1000) + seconds;
