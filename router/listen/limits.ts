/** What a listener allows its clients, by name. Those that operators set stand in `config.ts`. */

export type ListenLimits = {
  /** Of a request's head: line and fields (431). */
  readonly headerBytesMax: number;
  /** From a request's first byte to the end of its head (408). */
  readonly headersMs: number;
  /** Timeouts of node:http fire on this tick only. */
  readonly checkEveryMs: number;
  /** An idle connection; above the 60 seconds of usual load balancers, so that they close first. */
  readonly keepAliveMs: number;
  /** From a connection to the end of its TLS handshake. */
  readonly handshakeMs: number;
};

export const listenLimits: ListenLimits = {
  headerBytesMax: 32 * 1024,
  headersMs: 10_000,
  checkEveryMs: 2000,
  keepAliveMs: 65_000,
  handshakeMs: 10_000,
};

/** Of HTTP/2. What is beyond them ends the stream or the session. */
export const streamLimits = {
  streamsMax: 100,
  /** Streams that a client may reset in one go, and per second. */
  resetBurst: 200,
  resetRate: 20,
  sessionMegabytesMax: 10,
  /** Fields of one head; one more than the request path allows, with the pseudo fields. */
  fieldsMax: 128,
  streamWindowBytes: 64 * 1024,
  sessionWindowBytes: 1024 * 1024,
  /** Entries of one SETTINGS frame. */
  settingsMax: 32,
  /** Frames that break the protocol, before the session ends: empty ones among them. */
  invalidFramesMax: 100,
} as const;
