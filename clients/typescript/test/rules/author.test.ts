import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Clock, newId } from '../../src/rules/author.ts';
import { compareBytes } from '../../src/rules/revision.ts';

const device = '0190a0b0-0000-7000-8000-000000000000';
/** What a system's clock may say, in any order. */
const time = fc.oneof(
  fc.integer({ min: 1_700_000_000_000, max: 1_700_000_000_003 }),
  fc.integer({ min: -1000, max: 9_999_999_999_999 }),
  fc.double({ min: 1_700_000_000_000, max: 1_700_000_000_003, noNaN: true }),
  fc.constantFrom(0, -1, NaN, Infinity),
);

describe('Clock', () => {
  test('rises_by_bytes_whatever_the_system_clock_does_and_over_restarts', () => {
    fc.assert(fc.property(fc.array(fc.record({ time, restarts: fc.boolean() }), { minLength: 2 }), (steps) => {
      let now = 0;
      let clock = new Clock(device, null, () => now);
      let last = '';
      for (const step of steps) {
        now = step.time;
        if (step.restarts) clock = new Clock(device, last || null, () => now);
        const hlc = clock.newHlc();
        expect(compareBytes(hlc, last)).toBeGreaterThan(0);
        expect(hlc).toMatch(/^\d{13}:\d{4}:/);
        last = hlc;
      }
    }), { numRuns: 1000 });
  });

  test('rises_when_two_tabs_make_hlcs_in_turn_and_observe_each_other', () => {
    fc.assert(fc.property(fc.array(fc.record({ time, tab: fc.nat(1) }), { minLength: 2 }), (steps) => {
      let now = 0;
      const tabs = [new Clock(device, null, () => now), new Clock(device, null, () => now)];
      let last = '';
      for (const step of steps) {
        now = step.time;
        const clock = tabs[step.tab]!;
        clock.observe(last);
        const hlc = clock.newHlc();
        expect(compareBytes(hlc, last)).toBeGreaterThan(0);
        last = hlc;
      }
    }));
  });

  test('rises_past_ten_thousand_in_one_millisecond', () => {
    const clock = new Clock(device, null, () => 1_700_000_000_000);
    let last = clock.newHlc();
    for (let i = 0; i < 20_001; i++) {
      const hlc = clock.newHlc();
      if (compareBytes(hlc, last) <= 0) throw new Error(`${hlc} after ${last}`);
      last = hlc;
    }
    expect(last).toBe(`1700000000002:0001:${device}`);
  });

  test('is_the_time_a_counter_and_the_device', () => {
    let now = 1_700_000_000_000;
    const clock = new Clock(device, null, () => now);
    expect(clock.newHlc()).toBe(`1700000000000:0000:${device}`);
    expect(clock.newHlc()).toBe(`1700000000000:0001:${device}`);
    now += 5;
    expect(clock.newHlc()).toBe(`1700000000005:0000:${device}`);
    now = 42;
    expect(clock.newHlc()).toBe(`1700000000005:0001:${device}`);
    expect(new Clock(device, null, () => 42).newHlc()).toBe(`0000000000042:0000:${device}`);
  });

  test('does_not_go_back_to_an_older_hlc_nor_mind_one_of_another_form', () => {
    const clock = new Clock(device, '1700000000000:0005:x', () => 0);
    for (const hlc of ['1600000000000:0009:x', '1700000000000:0004:x', 'iso-2099', '']) clock.observe(hlc);
    expect(clock.newHlc()).toBe(`1700000000000:0006:${device}`);
  });

  test('knows_its_own_hlcs_and_those_of_no_device_whose_name_ends_alike', () => {
    const clock = new Clock('b', null);
    expect(clock.isOwn(clock.newHlc())).toBe(true);
    expect(clock.isOwn('1700000000000:0000:ab')).toBe(false);
    expect(clock.isOwn('1700000000000:0000:a')).toBe(false);
  });
});

describe('newId', () => {
  test('is_a_uuid_of_version_7_that_begins_with_the_time', () => {
    fc.assert(fc.property(fc.integer({ min: 0, max: 2 ** 48 - 1 }), (now) => {
      const id = newId(now);
      expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
      expect(parseInt(id.slice(0, 8) + id.slice(9, 13), 16)).toBe(now);
    }));
  });

  test('is_another_one_each_time', () => {
    expect(new Set(Array.from({ length: 10_000 }, () => newId(5))).size).toBe(10_000);
  });

  test('has_that_form_also_before_1970', () => {
    expect(newId(-5)).toMatch(/^00000000-0000-7/);
  });

  test('is_what_a_clock_gives_its_ops', () => {
    expect(new Clock(device, null, () => 0xabcdef).newOpId()).toMatch(/^00000000-abcd-7|^000000ab-cdef-7/);
  });
});
