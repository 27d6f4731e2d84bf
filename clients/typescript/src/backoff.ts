const FIRST = [250, 1000, 3000, 5000];
const LONGEST = 60_000;

/** Milliseconds to wait after so many failures in a row: a random part of a growing time, so that
 * devices do not come back all at once. */
export function pauseAfter(failures: number, retryAfter = 0, random: () => number = Math.random): number {
  const most = FIRST[failures - 1] ?? Math.min(LONGEST, 5000 * 2 ** (failures - FIRST.length));
  return Math.max(most * (0.5 + random() / 2), retryAfter);
}
