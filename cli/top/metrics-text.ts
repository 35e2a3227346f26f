/** Pure: a page of Prometheus text (0.0.4) as samples. What is no sample is passed over. */
export type Sample = {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
};

const line = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?$/;
const pair = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;

export function parseMetrics(text: string): Sample[] {
  return text.split("\n").flatMap((raw): Sample[] => {
    const [, name, labels = "", value = ""] = raw.startsWith("#") ? [] : (line.exec(raw) ?? []);
    const number = value === "+Inf" ? Number.POSITIVE_INFINITY : Number(value);
    if (name === undefined || Number.isNaN(number)) return [];
    return [{ name, labels: parseLabels(labels), value: number }];
  });
}

const escapes: Readonly<Record<string, string>> = { n: "\n", '"': '"', "\\": "\\" };

const parseLabels = (text: string): Record<string, string> =>
  Object.fromEntries(
    [...text.matchAll(pair)].map(([, name = "", value = ""]) => [
      name,
      value.replace(/\\(.)/g, (_, letter: string) => escapes[letter] ?? letter),
    ]),
  );
