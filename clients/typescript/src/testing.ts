import { outbox } from './testing/outbox.ts';
import { random } from './testing/random.ts';
import { records } from './testing/records.ts';
import type { StoreUnderTest } from './testing/support.ts';
import { transactions } from './testing/transactions.ts';

export type { StoreUnderTest } from './testing/support.ts';

/** Defines the tests that each store must pass, by the `test` of any test runner. */
export function testStore(
  name: string,
  make: () => StoreUnderTest | Promise<StoreUnderTest>,
  test: (name: string, body: () => Promise<void>) => void,
): void {
  for (const [claim, body] of Object.entries({ ...transactions, ...records, ...outbox, ...random })) {
    test(`${name}: ${claim}`, async () => body(await make()));
  }
}
