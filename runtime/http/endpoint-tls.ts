/**
 * TLS towards endpoints. Verified, always, and by the name of the endpoint: what a client asks for
 * never chooses whom the router trusts.
 */
import { Agent } from "node:https";
import { isIP, type LookupFunction } from "node:net";
import { connect as connectTls, type SecureContext } from "node:tls";
import { buildConnector, type Pool } from "undici";
import { tlsVersionMin } from "../tls/followed.ts";
import { errorCode } from "./error-code.ts";

/** How connections to `https:` endpoints are made; they are verified, always. */
export type EndpointTls = {
  /** Whom to trust and what to show; undefined: whom the system trusts, and nothing. */
  readonly context: SecureContext | undefined;
  /** The name that the certificate must carry; undefined: the host of the URL. */
  readonly servername: string | undefined;
};
export type EndpointTlsSource = {
  /** Asked for each new connection, so that what is read anew counts from then on. */
  readonly current: () => EndpointTls;
  /** A handshake that came to nothing. */
  readonly onFailed: (url: string, error: Error) => void;
};
export const systemTls: EndpointTlsSource = {
  current: () => ({ context: undefined, servername: undefined }),
  onFailed: () => {},
};

/** A connector per material: its cache of sessions must not outlive the trust they were made under. */
/** How a connection is made before TLS begins. */
export type Dial = { readonly timeout: number; readonly lookup?: LookupFunction };

export function secureConnector(
  url: string,
  { current, onFailed }: EndpointTlsSource,
  dial: Dial,
): buildConnector.connector {
  let made:
    | { readonly from: EndpointTls; readonly connector: buildConnector.connector }
    | undefined;
  return (target, done) => {
    const from = current();
    if (made === undefined || made.from !== from) {
      const { context: secureContext } = from;
      const connector = buildConnector({
        ...dial,
        ...{ allowH2: false, rejectUnauthorized: true, minVersion: tlsVersionMin },
        ...(secureContext === undefined ? {} : { secureContext }),
      });
      made = { from, connector };
    }
    // Without a name undici takes that of the URL; an address is verified as an address.
    const { servername: _ofRequest, ...rest } = target;
    const { servername } = from;
    made.connector(servername === undefined ? rest : { ...rest, servername }, (...made) => {
      const [error] = made;
      if (error !== null && isTlsError(error)) onFailed(url, error);
      done(...made);
    });
  };
}

/** Of a handshake: verification on our side, or an alert of the other side's. */
export const isTlsError = (error: Error): boolean =>
  /^ERR_(TLS|SSL)_|CERT|SELF_SIGNED|UNABLE_TO_|^CRL_|^EPROTO$/.test(errorCode(error));

/**
 * The other side did not take our certificate. With TLS 1.3 that comes when the request is already sent;
 * the server has not read it, because its handshake never ended.
 */
export const isHandshakeAlert = (error: Error): boolean =>
  /^ERR_SSL_.*ALERT.*(CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED)/.test(errorCode(error));

/**
 * Left alone, undici takes the name for TLS from each request's Host header, which is the client's, and
 * ends the connection whenever it changes. With one name for all it does neither.
 */
export function withOneName(pool: Pool, servername: string): Pool {
  const named = pool.compose((dispatch) => (options, handler) => {
    const own: typeof options & { servername: string } = { ...options, servername };
    return dispatch(own, handler);
  });
  return named as unknown as Pool;
}

/** For http-proxy, which makes a connection per tunnel and would take its name from the client's Host. */
export function secureAgent(url: string, { current, onFailed }: EndpointTlsSource): Agent {
  const { hostname, port } = new URL(url);
  const host = hostname.replace(/^\[|\]$/g, "");
  const agent = new Agent({ keepAlive: false });
  agent.createConnection = () => {
    const { context: secureContext, servername = isIP(host) === 0 ? host : undefined } = current();
    const socket = connectTls({
      ...{ host, port: Number(port === "" ? 443 : port), ALPNProtocols: ["http/1.1"] },
      ...{ rejectUnauthorized: true, minVersion: tlsVersionMin },
      ...(servername === undefined ? {} : { servername }),
      ...(secureContext === undefined ? {} : { secureContext }),
    });
    socket.on("error", (error) => {
      if (isTlsError(error)) onFailed(url, error);
    });
    return socket;
  };
  return agent;
}
