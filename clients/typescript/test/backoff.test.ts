import fc from 'fast-check';
import { expect, test } from 'vitest';
import { pauseAfter } from '../src/backoff.ts';

const most = (failures: number) => pauseAfter(failures, 0, () => 1);
const least = (failures: number) => pauseAfter(failures, 0, () => 0);

test('pauses_grow_from_a_quarter_of_a_second_to_a_minute', () => {
  expect([1, 2, 3, 4, 5, 6, 7, 8, 9].map(most)).toEqual([250, 1000, 3000, 5000, 10_000, 20_000, 40_000, 60_000, 60_000]);
});

test('a_pause_is_at_least_half_of_the_longest_and_never_longer', () => {
  fc.assert(fc.property(fc.integer({ min: 1, max: 5000 }), fc.double({ min: 0, max: 0.999, noNaN: true }), (failures, random) => {
    const pause = pauseAfter(failures, 0, () => random);
    expect(pause).toBeGreaterThanOrEqual(least(failures));
    expect(pause).toBeLessThanOrEqual(most(failures));
    expect(least(failures)).toBe(most(failures) / 2);
    expect(most(failures)).toBeLessThanOrEqual(60_000);
    expect(most(failures + 1)).toBeGreaterThanOrEqual(most(failures));
  }));
});

test('a_pause_is_not_shorter_than_the_server_wants', () => {
  expect(pauseAfter(1, 7000)).toBe(7000);
  expect(pauseAfter(9, 7000, () => 1)).toBe(60_000);
});

test('pauses_differ_by_chance', () => {
  expect(new Set(Array.from({ length: 20 }, () => pauseAfter(5))).size).toBeGreaterThan(1);
});
