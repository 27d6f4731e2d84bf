const PAUSES = [250, 1000, 3000, 5000, 10_000, 20_000, 40_000];

/** Milliseconds to wait after so many failures in a row: a random part of a growing time, so that
 * devices do not come back all at once. */
export function pauseAfter(failures: number, retryAfter = 0, random: () => number = Math.random): number {
  const most = PAUSES[failures - 1] ?? 60_000;
  return Math.max(most * (0.5 + random() / 2), retryAfter);
}
