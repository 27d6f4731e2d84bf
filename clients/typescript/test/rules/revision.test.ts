import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { compare, compareBytes, isSame } from '../../src/rules/revision.ts';
import { revision, text } from '../support/arbitrary.ts';

describe('compareBytes', () => {
  test('orders_any_text_as_the_bytes_of_utf8_are_ordered', () => {
    fc.assert(fc.property(text, text, text, (start, a, b) => {
      const order = compareBytes(start + a, start + b);
      expect(Math.sign(order)).toBe(Buffer.compare(Buffer.from(start + a), Buffer.from(start + b)));
    }), { numRuns: 2000 });
  });

  test.each([
    ['\ud7ff', '\ue000'],
    ['\uffff', '\u{10000}'],
    ['\ue000', '\u{10ffff}'],
    ['\u{10000}', '\u{10001}'],
    ['\u{103ff}', '\u{10400}'],
    ['a', 'a\0'],
    ['', 'a'],
  ])('puts_%j_before_%j', (a, b) => {
    expect(compareBytes(a, b)).toBeLessThan(0);
    expect(compareBytes(b, a)).toBeGreaterThan(0);
    expect(compareBytes(a, a)).toBe(0);
  });
});

describe('compare', () => {
  const some = fc.option(revision, { nil: undefined });

  test('is_a_total_order', () => {
    fc.assert(fc.property(some, some, some, (a, b, c) => {
      expect(Math.sign(compare(a, b)) + Math.sign(compare(b, a))).toBe(0);
      expect(compare(a, b) === 0).toBe(JSON.stringify(a) === JSON.stringify(b));
      if (compare(a, b) <= 0 && compare(b, c) <= 0) expect(compare(a, c)).toBeLessThanOrEqual(0);
    }), { numRuns: 2000 });
  });

  test('goes_by_clock_then_hlc_then_op_id', () => {
    const low = { clock: 9, hlc: 'b', opId: '2' };
    expect(compare({ clock: 10, hlc: 'a', opId: '1' }, low)).toBeGreaterThan(0);
    expect(compare({ clock: 9, hlc: 'c', opId: '1' }, low)).toBeGreaterThan(0);
    expect(compare({ clock: 9, hlc: 'b', opId: '3' }, low)).toBeGreaterThan(0);
  });

  test('puts_a_missing_revision_below_every_other', () => {
    fc.assert(fc.property(revision, (one) => {
      expect(compare(null, one)).toBeLessThan(0);
      expect(compare(one, undefined)).toBeGreaterThan(0);
    }));
    expect(compare(null, undefined)).toBe(0);
  });

  test('is_same_only_for_the_same_op', () => {
    fc.assert(fc.property(some, some, (a, b) => {
      expect(isSame(a, b)).toBe(JSON.stringify(a) === JSON.stringify(b));
    }));
  });
});
