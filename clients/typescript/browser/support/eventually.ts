import { expect } from 'vitest';

/** Waits until what the function returns, or resolves to, is the value. */
export async function eventually<T>(what: () => T | Promise<T>, value: NoInfer<T>): Promise<void> {
  await expect.poll(what, { timeout: 20_000, interval: 20 }).toEqual(value);
}
