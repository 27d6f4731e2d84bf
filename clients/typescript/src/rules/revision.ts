import type { Revision } from '../wire.ts';

/** Compares by the bytes of UTF-8, as Postgres does; JavaScript compares by UTF-16 units, where
 * surrogates come before the units above them. */
export function compareBytes(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x !== y) return inOrder(x) - inOrder(y);
  }
  return a.length - b.length;
}

/** Moves surrogates above all other units. */
function inOrder(unit: number): number {
  return unit >= 0xe000 ? unit - 0x800 : unit >= 0xd800 ? unit + 0x2000 : unit;
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
