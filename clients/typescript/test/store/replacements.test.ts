import { expect, test } from 'vitest';
import type { Entry } from '../../src/rules/view.ts';
import { replacements } from '../../src/store/replacements.ts';

const [a, b, c] = ['a', 'b', 'c'].map((opId): Entry => ({
  op: { tableName: 'notes', pk: 'n', operation: 'delete', stamp: { clock: 1, hlc: '', opId, deviceId: 'd' } },
  sent: false,
})) as [Entry, Entry, Entry];

test('an entry takes the place of one that leaves', () => {
  expect(replacements([a, b], [a, c])).toEqual([['b', c]]);
  expect(replacements([a, b], [c])).toEqual([['b', c], ['a']]);
});

test('an entry does not pass one that stays', () => {
  expect(replacements([a, b], [b, c])).toEqual([['c', c], ['a']]);
});
