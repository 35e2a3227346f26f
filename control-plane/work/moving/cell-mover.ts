/** All that a move does in cells' databases, put together: one set of connections and snapshots per process. */
import { createFrozenSnapshots } from "../../../moving/frozen-snapshots.ts";
import { createHooks } from "../../../moving/hooks.ts";
import type { CellMover } from "../../../moving/ports.ts";
import { createPreflight } from "../../../moving/preflight/preflight.ts";
import { createStreams } from "../../../moving/streams.ts";
import { createSwitch } from "../../../moving/switch/switch.ts";
import { createVerify } from "../../../moving/verify/verify.ts";
import type { Clock } from "../../../runtime/clock.ts";
import type { Random } from "../../../runtime/random.ts";

export function createCellMover(options: {
  readonly clock: Clock;
  readonly random: Random;
  /** Hooks may be commands, which run with this process's rights. */
  readonly allowCommands: boolean;
}): CellMover {
  const { clock, random } = options;
  const frozen = createFrozenSnapshots();
  const hooks = createHooks(options);
  const { close, ...switching } = createSwitch({ clock, random, snapshots: frozen });
  return {
    ...createStreams({ clock }),
    ...switching,
    ...createVerify({ clock, random, frozen }),
    ...createPreflight(hooks),
    hooks,
    forget: frozen.forget,
    close: async () => {
      await frozen.close();
      await close();
    },
  };
}
