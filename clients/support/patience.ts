/**
 * How long tests wait before something counts as hung. A wait ends as soon as what it waits for
 * holds, so these are far more than a slow machine needs.
 */

/** Milliseconds for a single thing; less than the client's own timers need to make up for a missed
 * signal. */
export const PATIENCE = 20_000;

/** The same where a browser is slow, and pauses after failures grow with it. */
export const BROWSER_PATIENCE = 60_000;

/** For a config of vitest. */
export const limits = { testTimeout: 240_000, hookTimeout: 240_000 };
