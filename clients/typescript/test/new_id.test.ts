import { expect, test } from 'vitest';
import { newId } from '../src/rules/author.ts';

test('ids are UUIDs of version 7 that sort by time', () => {
  const times = [0, 1, 1_700_000_000_000.5, 1_700_000_000_001, 9_999_999_999_999];
  const ids = times.map((time) => newId(time));
  for (const id of [...ids, newId(), newId(-5), newId(8.64e15)]) {
    expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  }
  expect(ids.toSorted()).toEqual(ids);
  expect(newId(1_700_000_000_000)).toMatch(/^018bcfe5-6800-/);
  expect(new Set(Array.from({ length: 1000 }, () => newId(5))).size).toBe(1000);
});
