/**
 * The admin ports of routers, asked all at once: those that the control plane knows, or those that are
 * named. A router that does not answer is part of the answer, not the end of it.
 */
import { Agent, request } from "undici";
import { routerSchema } from "../contract/control-api.ts";
import { usage } from "./failures.ts";
import type { Session } from "./session.ts";

export type RouterAdmin = { readonly id: string; readonly url: string };
export type Silent = { readonly router: string; readonly why: string };
export type Asked<T> = {
  readonly answers: ReadonlyArray<{ readonly router: string; readonly value: T }>;
  readonly silent: readonly Silent[];
};

const answerMs = 3000;
const answerBytesMax = 32 * 1024 * 1024;

/** `named` are addresses of admin ports; without any, the control plane is asked which there are. */
export async function findRouters(
  session: Session,
  named: readonly string[],
): Promise<readonly RouterAdmin[]> {
  if (named.length > 0) return named.map((raw) => ({ id: raw, url: originOf(raw) }));
  const api = await session.api();
  const routers: RouterAdmin[] = [];
  for await (const { items } of api.pages("/v1/routers", routerSchema)) {
    routers.push(...items.map(({ id, admin }) => ({ id, url: admin })));
  }
  return routers;
}

function originOf(raw: string): string {
  const url = URL.canParse(raw) ? new URL(raw) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol)) {
    throw usage(`--router-admin "${raw}": must be the URL of a router's admin port`);
  }
  return url.origin;
}

/** Reads `path` of each and makes `T` of it; what cannot be read is told as silence. */
export async function askRouters<T>(
  routers: readonly RouterAdmin[],
  path: string,
  parse: (text: string) => T,
): Promise<Asked<T>> {
  const agent = new Agent({ connections: 1, connectTimeout: answerMs, allowH2: false });
  try {
    const answers: { router: string; value: T }[] = [];
    const silent: Silent[] = [];
    await Promise.all(
      routers.map(async ({ id, url }) => {
        try {
          answers.push({ router: id, value: parse(await read(agent, `${url}${path}`)) });
        } catch (error) {
          silent.push({ router: id, why: `${url}: ${reasonOf(error)}` });
        }
      }),
    );
    return { answers, silent };
  } finally {
    await agent.destroy();
  }
}

async function read(agent: Agent, url: string): Promise<string> {
  const signal = AbortSignal.timeout(answerMs);
  const { statusCode, body } = await request(url, { dispatcher: agent, signal });
  let text = "";
  body.setEncoding("utf8");
  for await (const chunk of body) {
    text += String(chunk);
    if (text.length > answerBytesMax) throw new Error("the answer is too large");
  }
  if (statusCode !== 200) throw new Error(`it answered ${statusCode}`);
  return text;
}

const reasonOf = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error);
  if (error.name === "TimeoutError") return `no answer within ${answerMs} ms`;
  return error.message === "" && "code" in error ? String(error.code) : error.message;
};
