/** `cellctl status`: the fleet in a few lines. */
import { statusSchema } from "../../contract/control-api.ts";
import type { Register } from "../grammar.ts";
import { statusView } from "../render/views.ts";

export const register: Register = (noun, bind) => {
  bind(noun, async (session) => {
    const api = await session.api();
    await session.out.one(await api.get("/v1/status", statusSchema), statusView);
    return 0;
  });
};
