/** Who may import whom, as data: docs/ARCHITECTURE.md tells the same in a table for people. */

type ImportRule = {
  /** Files this rule governs. The first match wins, so inner rooms stand before outer ones. */
  readonly from: RegExp;
  /** Files of ours it may import. */
  readonly may: readonly RegExp[];
  /** npm and `node:` packages it may import; absent means any. */
  readonly packages?: readonly string[];
  readonly why: string;
};

const contract = /^contract\//;
const runtime = /^runtime\//;
const assertions = /^runtime\/assert\.ts$/;
/** The router's decisions: values in, values out. */
const pureRouter =
  /^router\/(receive\/(identify|rewrite-headers)|place\/(decide|flags)|cells\/(retry|breaker|health-state)|limits\/(deadline|shed))\.ts$/;

export const importRules: readonly ImportRule[] = [
  {
    from: /^contract\/(placement-key|alias)\.ts$/,
    may: [contract],
    packages: ["zod", "node:crypto"],
    why: "the wire language depends on nothing of ours; only slots and names of tenants need a hash",
  },
  {
    from: contract,
    may: [contract],
    packages: ["zod"],
    why: "the wire language depends on nothing of ours",
  },
  {
    from: assertions,
    may: [],
    packages: [],
    why: "it imports nothing, so that the pure core may use it",
  },
  { from: runtime, may: [runtime, contract], why: "leaves carry no opinions about the product" },
  {
    from: pureRouter,
    may: [contract, assertions, pureRouter],
    packages: [],
    why: "routing decisions are pure",
  },
  {
    from: /^router\//,
    may: [/^router\//, /^table\//, contract, runtime],
    why: "the data plane must run when the control plane is gone",
  },
  {
    from: /^table\//,
    may: [/^table\//, contract, runtime],
    why: "router and agent follow the routing table with the same code, and it knows neither",
  },
  {
    from: /^examples\//,
    may: [/^examples\//],
    why: "the examples use nothing of ours, as any application in any language",
  },
  {
    from: /^adoption\//,
    may: [/^adoption\//, /^cell\/store\//, contract, runtime],
    why: "what looks at and prepares an application's database knows no other part of the fleet",
  },
  {
    from: /^cell\/sample\//,
    may: [/^cell\/sample\//],
    why: "the sample application uses nothing of ours, as any application in any language",
  },
  {
    from: /^cell\/agent\//,
    may: [/^cell\/agent\//, /^cell\/store\//, /^table\//, contract, runtime],
    why: "a cell knows neither its neighbours nor the router's code",
  },
  {
    from: /^cell\/(store|sql)\//,
    may: [/^cell\/(store|sql)\//, contract, runtime],
    why: "the cell's database stands on its own",
  },
  {
    from: /^control-plane\/core\//,
    may: [/^control-plane\/core\//, contract, assertions],
    packages: [],
    why: "decisions are pure: no I/O, no clock, no dice",
  },
  {
    from: /^control-plane\/store\//,
    may: [/^control-plane\/(store|core)\//, contract, runtime],
    why: "the store saves decisions and makes none",
  },
  {
    from: /^control-plane\/api\//,
    may: [/^control-plane\/(api|store|core)\//, contract, runtime],
    why: "the API records intent; only the loops in work/ act",
  },
  {
    from: /^control-plane\/work\/moving\//,
    may: [/^control-plane\//, /^moving\//, contract, runtime],
    why: "only the executor of moves touches cells' databases, through moving/",
  },
  {
    from: /^control-plane\/work\/standby\//,
    may: [/^control-plane\//, /^standby\//, /^moving\/ports\.ts$/, contract, runtime],
    why: "only the keeper of standbys and the executor of failovers touch annexes, through standby/",
  },
  {
    from: /^control-plane\/work\/failover\//,
    may: [
      ...[/^control-plane\//, /^standby\//, contract, runtime],
      /^moving\/(connection|names|ports|streams-objects)\.ts$/,
    ],
    why: "only the keeper of standbys and the executor of failovers touch annexes, through standby/; rows of homes are looked up and written by the mover's connection",
  },
  {
    from: /^control-plane\//,
    may: [/^control-plane\//, contract, runtime],
    why: "it meets cells and routers over the wire only",
  },
  {
    from: /^moving\//,
    may: [/^moving\//, /^cell\/store\//, contract, runtime],
    why: "what happens in cells' databases during a move knows no fleet, only its task",
  },
  {
    from: /^standby\//,
    may: [/^standby\//, /^moving\//, /^cell\/store\//, contract, runtime],
    why: "what happens in databases of origins and annexes knows no fleet, only its pair",
  },
  {
    from: /^local\//,
    may: [/^local\//, contract, runtime, /^cell\/store\//, /^adoption\//],
    why: "one machine's processes are started as processes, not imported",
  },
  {
    from: /^cli\/processes\.ts$/,
    may: [
      ...[/^cli\//, contract, runtime, /^(router|control-plane|cell\/agent|local)\/run\.ts$/],
      // Its defaults alone, for help: run.ts would load the whole router.
      /^router\/config\.ts$/,
    ],
    why: "the one door from the CLI to the other rooms is each room's run.ts",
  },
  {
    from: /^cli\/adoption\.ts$/,
    may: [/^cli\//, contract, runtime, /^adoption\//],
    why: "the one door from the CLI to the user's own databases and files",
  },
  {
    from: /^cli\//,
    may: [/^cli\//, contract, runtime],
    why: "the CLI is one more client of the API; cli/processes.ts alone starts the rooms",
  },
  {
    from: /^history\/(check|file|model)[a-z-]*\.ts$/,
    may: [/^history\//, contract, assertions],
    packages: ["zod"],
    why: "the checker is pure, or nobody could trust its verdict",
  },
  {
    from: /^history\//,
    may: [/^history\//, contract, runtime],
    why: "the checker shares no code with what it checks",
  },
  {
    from: /^model\//,
    may: [
      ...[/^model\//, contract, assertions, pureRouter, /^control-plane\/core\//],
      /^cell\/agent\/gate-decision\.ts$/,
      /^router\/(answer\/confirm|place\/hold)\.ts$/,
    ],
    packages: [],
    why: "the model asks pure decisions alone, or its every state would not be every state",
  },
  { from: /^(bench|tests)\//, may: [/^/], why: "harnesses may look anywhere" },
];
