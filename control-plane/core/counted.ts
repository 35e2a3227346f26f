/** Numbers with their words, for the texts that operators read: `1 key`, `2 keys`. Pure. */
export const counted = (value: number, one: string): string =>
  `${value} ${one}${value === 1 ? "" : "s"}`;

/** `is` of one, `are` of more. */
export const areOf = (value: number): "is" | "are" => (value === 1 ? "is" : "are");
