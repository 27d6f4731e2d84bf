import type { Revision } from '../wire.ts';

/** Compares by the bytes of UTF-8, as Postgres does; JavaScript compares by UTF-16 units, where
 * surrogates come before the units above them. */
export function compareBytes(a: string, b: string): number {
  let i = 0;
  while (i < a.length && a[i] === b[i]) i++;
  return (a.codePointAt(i) ?? -1) - (b.codePointAt(i) ?? -1);
}

/** Negative, zero or positive; a missing revision is below every other. */
export function compare(a: Revision | null | undefined, b: Revision | null | undefined): number {
  if (!a || !b) return Number(!!a) - Number(!!b);
  return a.clock - b.clock || compareBytes(a.hlc, b.hlc) || compareBytes(a.opId, b.opId);
}

export function isSame(a: Revision | null | undefined, b: Revision | null | undefined): boolean {
  return compare(a, b) === 0;
}

export function revisionOf({ clock, hlc, opId }: Revision): Revision {
  return { clock, hlc, opId };
}
