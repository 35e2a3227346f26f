/**
 * The house rules as data, and the pure checker that reads them: who may import whom, which words
 * may stand where, how a file looks. It reads source text, not a compiler's API, so it works with
 * any TypeScript release. `architecture.test.ts` runs it on the real tree and on planted violations.
 *
 * docs/ARCHITECTURE.md tells the same in a table for people; this file is the authority.
 */

import { importRules } from "./import-rules.ts";

/** A file of the tree: its path from the root with forward slashes, and its text. */
export type SourceFile = { readonly path: string; readonly text: string };

type Ban = {
  readonly word: RegExp;
  /** Where it may stand. */
  readonly except: RegExp;
  readonly use: string;
};

const harness = "^tests/|^bench/|\\.(test|fixture)\\.ts$|^cell/sample/|^examples/";

/** Words with their replacement; read line by line, in .ts files, outside comments. */
export const bannedWords: readonly Ban[] = [
  {
    word: /\bDate\.now\(|\bnew Date\(\)|\bperformance\.now\(|\bprocess\.hrtime\b/,
    except: new RegExp(`^runtime/clock\\.ts$|${harness}`),
    use: "the injected Clock",
  },
  {
    // `socket.setTimeout` is an idle limit of the socket, not a timer of ours.
    word: /(?<!\.)\bset(Timeout|Interval|Immediate)\(|["'](node:)?timers(\/promises)?["']/,
    except: new RegExp(`^runtime/clock\\.ts$|${harness}`),
    use: "the injected Clock's timers",
  },
  {
    word: /\bMath\.random\(|\brandomUUID\(|\brandomBytes\(/,
    except: new RegExp(`^runtime/random\\.ts$|${harness}`),
    use: "the injected Random",
  },
  {
    word: /\bprocess\.env\b/,
    except: new RegExp(`/main\\.ts$|\\.config\\.ts$|${harness}`),
    use: "the parsed configuration: only an entry point reads the environment",
  },
  {
    word: /\bconsole\./,
    except: new RegExp(`/main\\.ts$|${harness}`),
    use: "the typed log",
  },
  {
    word: /["']http-proxy["']/,
    except: /^router\/listen\/upgrade\.ts$|^bench\//,
    use: "router/listen/upgrade.ts, the one file that knows http-proxy",
  },
  {
    word: /\bimport\(\s*[^"'\s]/,
    // The name of PostgreSQL's package depends on the platform.
    except: new RegExp(`^local/postgres/binaries\\.ts$|${harness}`),
    use: "a literal path, so that this checker sees where the import leads",
  },
  {
    word: /\bas (TenantId|CellId|KeyspaceName|RouterId|OpId|Epoch|Revision)\b/,
    except: /^contract\/ids\.ts$/,
    use: "the parser in contract/ids.ts: nothing else mints an id",
  },
  {
    word: /\bas PlacementKey\b/,
    except: /^contract\/placement-key\.ts$/,
    use: "the constructors in contract/placement-key.ts: nothing else mints a key",
  },
];

/**
 * One lock key (DESIGN: two seeds, mixed, exclude nothing). In .ts and .sql an advisory lock names
 * `cellfleet.lock_key(…)` in the same call, or stands here with its reason.
 */
export const lockExceptions: readonly { readonly path: RegExp; readonly why: string }[] = [
  {
    path: /^adoption\/schema\/installation-lock\.ts$/,
    why: "one installation at a time, also where the pack is not there yet; the pair form shares no number with a tenant's lock",
  },
  {
    path: /^control-plane\/store\/database\.ts$/,
    why: "one migrator at a time in the control plane's own database, where no tenant has a lock",
  },
  {
    path: /^control-plane\/store\/events\.ts$/,
    why: "one writer of the log of events at a time, in the control plane's own database",
  },
  {
    path: /^control-plane\/store\/idempotency\.ts$/,
    why: "one request per token and Idempotency-Key, in the control plane's own database",
  },
  {
    path: /^cell\/store\/install\.ts$/,
    why: "one installer at a time, before there is a cellfleet.lock_key() to call",
  },
  {
    path: /^moving\/verify\/sums\.ts$/,
    why: "checksums of rows; it takes no lock",
  },
];

/** The one place where a hash for a lock may be computed. */
const lockKeyHome = /^cell\/sql\/[\w/-]+\.sql$/;

const bannedNames = /(^|\/)(utils?|helpers?|common|misc|shared|manager|index|mod)(\/|\.ts$)/;
const linesMax = 400;

/** Every rule, by name. Each takes the whole tree and names what breaks it, one text per fault. */
export const checks = {
  "the checker sees the code": seesTheCode,
  "imports flow one way": importsFlowOneWay,
  "nobody imports an entry point": nobodyImportsMain,
  "time, chance, environment and output enter by the front door": noBannedWords,
  "one lock key": oneLockKey,
  "no test is switched off or left alone": noSwitchedOffTests,
  "no dumping grounds, no endless files": namesAndLengths,
  "every file opens with what it is for": opensWithPurpose,
} as const satisfies Record<string, (files: readonly SourceFile[]) => string[]>;

/** A fixture stands beside the tests that share it; production must not import it. */
const isFixture = (path: string): boolean => path.endsWith(".fixture.ts");
const isTest = (path: string): boolean => path.endsWith(".test.ts") || isFixture(path);
const isHarness = (path: string): boolean => /^(tests|bench)\//.test(path);
const isTypeScript = (path: string): boolean => path.endsWith(".ts");
const isConfig = (path: string): boolean => /^[\w.-]+\.config\.ts$/.test(path);
/** Texts about the rules contain the forbidden words on purpose. */
const isAboutRules = (path: string): boolean => path.startsWith("tests/architecture");

const production = (files: readonly SourceFile[]): SourceFile[] =>
  files.filter(({ path }) => isTypeScript(path) && !isTest(path) && !isConfig(path));

/** A checker that found nothing to check must not be green. */
function seesTheCode(files: readonly SourceFile[]): string[] {
  const imports = production(files).map(importsOf);
  const found = {
    "files of TypeScript": production(files).length,
    "imports of our own files": imports.flatMap(({ ours }) => ours).length,
    "imports of packages": imports.flatMap(({ packages }) => packages).length,
    tests: files.filter(({ path }) => isTest(path)).length,
  };
  return Object.entries(found).flatMap(([what, count]) =>
    count === 0 ? [`found no ${what}: there is nothing to check`] : [],
  );
}

function importsFlowOneWay(files: readonly SourceFile[]): string[] {
  return production(files).flatMap((file) => {
    const rule = importRules.find((candidate) => candidate.from.test(file.path));
    if (rule === undefined) return [`${file.path} lies in no room: add a rule for it`];
    const { ours, packages } = importsOf(file);
    const strangers = ours.filter(
      (target) =>
        !rule.may.some((allowed) => allowed.test(target)) ||
        (isFixture(target) && !isHarness(file.path)),
    );
    const foreign = packages.filter((name) => !(rule.packages?.includes(name) ?? true));
    return [...strangers, ...foreign].map(
      (target) => `${file.path} may not import ${target}: ${rule.why}`,
    );
  });
}

function nobodyImportsMain(files: readonly SourceFile[]): string[] {
  return files
    .filter(({ path }) => isTypeScript(path))
    .flatMap((file) =>
      importsOf(file)
        .ours.filter((target) => target.endsWith("/main.ts"))
        .map((target) => `${file.path} imports ${target}, which acts when it is imported`),
    );
}

function noBannedWords(files: readonly SourceFile[]): string[] {
  return production(files)
    .filter(({ path }) => !isAboutRules(path))
    .flatMap((file) =>
      bannedWords
        .filter((ban) => !ban.except.test(file.path))
        .flatMap((ban) =>
          linesOfCode(file)
            .filter(({ text }) => ban.word.test(text))
            .map(({ text, line }) => `${file.path}:${line} use ${ban.use}: ${text.trim()}`),
        ),
    );
}

function oneLockKey(files: readonly SourceFile[]): string[] {
  const code = files.filter(
    ({ path }) => /\.(ts|sql)$/.test(path) && !isTest(path) && !isAboutRules(path),
  );
  const faults = code
    .filter(({ path }) => !lockExceptions.some((exception) => exception.path.test(path)))
    .flatMap((file) =>
      linesOfCode(file).flatMap(({ text, line }) => {
        const where = `${file.path}:${line}`;
        if (/\bhash(text|int4|int8|char)\w*\s*\(/i.test(text) && !lockKeyHome.test(file.path)) {
          return [`${where} computes a hash: call cellfleet.lock_key()`];
        }
        const locks = /\bpg_(try_)?advisory\w*\s*\(/i.test(text);
        return locks && !/cellfleet\.lock_key\s*\(/.test(text)
          ? [`${where} takes an advisory lock without cellfleet.lock_key() in the same line`]
          : [];
      }),
    );
  const hashes = code
    .filter(({ path }) => lockKeyHome.test(path))
    .flatMap((file) =>
      linesOfCode(file).filter(({ text }) => /\bhash(text|int4|int8|char)\w*\s*\(/i.test(text)),
    );
  return hashes.length > 1
    ? [...faults, `${hashes.length} hashes are computed in cell/sql: lock_key() alone may hash`]
    : faults;
}

function noSwitchedOffTests(files: readonly SourceFile[]): string[] {
  const off =
    /\b(?:describe|test|it|suite)\s*\.\s*(?:only|skip|todo|fails|skipIf|runIf)\b|\bx(?:it|describe|test)\(|\b(?:context|ctx)\.skip\(/;
  return files
    .filter(({ path }) => isTypeScript(path) && !isAboutRules(path))
    .flatMap((file) =>
      linesOfCode(file)
        .filter(({ text }) => off.test(text))
        .map(({ text, line }) => `${file.path}:${line} ${text.trim()}`),
    );
}

function namesAndLengths(files: readonly SourceFile[]): string[] {
  const ours = files.filter(({ path }) => isTypeScript(path));
  return [
    ...ours
      .filter(({ path }) => bannedNames.test(path))
      .map(({ path }) => `${path} is named after nothing: say what it does`),
    ...production(ours)
      .map(({ path, text }) => ({ path, lines: text.replace(/\n$/, "").split("\n").length }))
      .filter(({ lines }) => lines > linesMax)
      .map(({ path, lines }) => `${path} has ${lines} lines, more than ${linesMax}: split it`),
  ];
}

function opensWithPurpose(files: readonly SourceFile[]): string[] {
  return production(files)
    .filter(({ text }) => !text.replace(/^#!.*\n/, "").startsWith("/**"))
    .map(({ path }) => `${path} does not open with a /** comment that says what it is for`);
}

/** Static imports, re-exports and dynamic imports, over several lines; type-only ones count too. */
const importSpecifier =
  /^(?:import\s+(?:[^"';]*?\sfrom\s+)?|export\s+[^"';=]*?\sfrom\s+)["']([^"']+)["']|\bimport\(\s*["']([^"']+)["']/gm;

function importsOf(file: SourceFile): { ours: string[]; packages: string[] } {
  const specifiers = [...file.text.matchAll(importSpecifier)].map(
    (match) => match[1] ?? match[2] ?? "",
  );
  const folder = file.path.split("/").slice(0, -1);
  return {
    ours: specifiers.filter((name) => name.startsWith(".")).map((name) => resolve(folder, name)),
    packages: specifiers.filter((name) => !name.startsWith(".")),
  };
}

function resolve(folder: readonly string[], relative: string): string {
  const parts = [...folder];
  for (const part of relative.split("/")) {
    if (part === "..") parts.pop();
    else if (part !== ".") parts.push(part);
  }
  return parts.join("/");
}

/** Lines that are not comments, with their numbers: prose may name what code must not use. */
function linesOfCode(file: SourceFile): { text: string; line: number }[] {
  const comment = file.path.endsWith(".sql") ? /^\s*--/ : /^\s*(\*|\/\/|\/\*)/;
  return file.text
    .split("\n")
    .map((text, index) => ({ text, line: index + 1 }))
    .filter(({ text }) => !comment.test(text));
}
