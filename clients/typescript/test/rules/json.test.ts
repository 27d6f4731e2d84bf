import fc from 'fast-check';
import vm from 'node:vm';
import { describe, expect, test } from 'vitest';
import { isEqual, toPayload } from '../../src/rules/json.ts';
import type { Json } from '../../src/wire.ts';
import { json, payload } from '../support/arbitrary.ts';

/** JSON with the names of objects in order. */
function canonical(value: Json): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`;
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  const members = Object.entries(value).map(([name, member]) => `${JSON.stringify(name)}:${canonical(member)}`);
  return `{${members.sort().join()}}`;
}

/** The same JSON, made anew with the names of objects the other way round. */
function reversed(value: Json): Json {
  if (Array.isArray(value)) return value.map(reversed);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).reverse().map(([name, member]) => [name, reversed(member)]));
}

describe('isEqual', () => {
  test('agrees_with_canonical_json', () => {
    const few = fc.letrec<{ value: Json }>((tie) => ({
      value: fc.oneof(
        { depthSize: 'small' },
        fc.constantFrom<Json>(null, true, 0, '', 'a', '0'),
        fc.array(tie('value'), { maxLength: 2 }),
        fc.dictionary(fc.constantFrom('a', 'b', '0', '__proto__', 'constructor', 'length'), tie('value'), { maxKeys: 2 }),
      ),
    })).value;
    fc.assert(fc.property(few, few, (a, b) => {
      expect(isEqual(a, b)).toBe(canonical(a) === canonical(b));
    }), { numRuns: 3000 });
  });

  test('ignores_the_order_of_names_and_nothing_else', () => {
    fc.assert(fc.property(json, (value) => {
      expect(isEqual(value, reversed(value))).toBe(true);
      expect(isEqual([value], [value, null])).toBe(false);
    }));
    expect(isEqual([1, 2], [2, 1])).toBe(false);
    expect(isEqual([], {})).toBe(false);
    expect(isEqual({}, [])).toBe(false);
    expect(isEqual({ length: 0 }, [])).toBe(false);
    expect(isEqual(null, undefined)).toBe(false);
    expect(isEqual({ a: null }, { b: null })).toBe(false);
    expect(isEqual(JSON.parse('{"__proto__": {}}'), { a: 1 })).toBe(false);
  });
});

describe('toPayload', () => {
  test('is_what_json_makes_of_it', () => {
    fc.assert(fc.property(payload, (row) => {
      const copy = toPayload(row);
      expect(isEqual(copy, JSON.parse(JSON.stringify(row)))).toBe(true);
      expect(JSON.stringify(copy)).toBe(JSON.stringify(row));
    }));
  });

  test('copies_so_that_later_changes_of_the_row_do_not_show', () => {
    const row = { tags: ['a'], place: { city: 'Bern' } };
    const copy = toPayload(row);
    row.tags.push('b');
    row.place.city = 'Basel';
    expect(copy).toEqual({ tags: ['a'], place: { city: 'Bern' } });
  });

  test('leaves_out_members_that_are_undefined_at_any_depth', () => {
    const copy = toPayload({ a: undefined, b: { c: undefined, d: 1 } });
    expect(Object.keys(copy)).toEqual(['b']);
    expect(Object.keys(copy.b as object)).toEqual(['d']);
  });

  test('keeps_a_member_named_proto_as_a_member', () => {
    const row = JSON.parse('{"__proto__": {"isAdmin": true}, "a": {"__proto__": 1}}');
    const copy = toPayload(row);
    expect(JSON.stringify(copy)).toBe('{"__proto__":{"isAdmin":true},"a":{"__proto__":1}}');
    expect(Object.getPrototypeOf(copy)).toBe(Object.prototype);
    expect((copy as { isAdmin?: boolean }).isAdmin).toBeUndefined();
  });

  test('accepts_plain_objects_of_another_realm_and_without_a_prototype', () => {
    expect(toPayload(vm.runInNewContext('({ a: { b: [1] } })'))).toEqual({ a: { b: [1] } });
    expect(toPayload(Object.assign(Object.create(null), { a: 1 }))).toEqual({ a: 1 });
  });

  class Money {
    amount = 1;
  }
  test.each<[string, unknown, string]>([
    ['a Date', { at: new Date(0) }, 'at is not JSON: Date'],
    ['a Map', { deep: { tags: new Map() } }, 'deep.tags is not JSON: Map'],
    ['a Set', { list: [1, new Set()] }, 'list[1] is not JSON: Set'],
    ['bytes', { image: new Uint8Array(1) }, 'image is not JSON: Uint8Array'],
    ['NaN', { n: NaN }, 'n is not JSON: NaN'],
    ['Infinity', { n: [-Infinity] }, 'n[0] is not JSON: -Infinity'],
    ['a bigint', { n: 1n }, 'n is not JSON: 1'],
    ['a function', { f: Math.abs }, 'f is not JSON'],
    ['a symbol', { s: Symbol('s') }, 's is not JSON: Symbol(s)'],
    ['an instance of a class', { price: new Money() }, 'price is not JSON: Money'],
    ['undefined in a list', { list: [undefined] }, 'list[0] is not JSON: undefined'],
    ['a hole in a list', { list: new Array(1) }, 'list[0] is not JSON: undefined'],
    ['half a character', { text: 'a\ud800' }, 'text is not JSON'],
    ['half a character in a name', { deep: { '\udc00': 1 } }, 'deep.\udc00 is not JSON'],
  ])('refuses_%s_with_its_path', (_, row, message) => {
    expect(() => toPayload(row)).toThrow(TypeError);
    expect(() => toPayload(row)).toThrow(message);
  });

  test.each<[string, unknown]>([
    ['null', null], ['undefined', undefined], ['text', 'a'], ['a number', 1], ['a list', []], ['a Date', new Date()],
    ['an instance of a class', new Money()],
  ])('refuses_%s_as_a_record', (_, row) => {
    expect(() => toPayload(row)).toThrow('a record is an object');
  });

  test('refuses_what_contains_itself_with_a_clear_error', () => {
    const row: { self?: unknown; list: unknown[] } = { list: [] };
    row.list.push({ row });
    expect(() => toPayload(row)).toThrow(TypeError);
    expect(() => toPayload(row)).toThrow('it contains itself, or is nested too deeply');
  });

  test('refuses_what_is_nested_too_deeply_with_the_same_error', () => {
    let row: Json = {};
    for (let i = 0; i < 100_000; i++) row = { a: row };
    expect(() => toPayload(row)).toThrow('it contains itself, or is nested too deeply');
  });

  test('accepts_the_same_object_twice', () => {
    const place = { city: 'Bern' };
    expect(toPayload({ from: place, to: place })).toEqual({ from: { city: 'Bern' }, to: { city: 'Bern' } });
  });

  test('accepts_what_is_nested_as_deeply_as_a_server_may_allow', () => {
    let row: Json = {};
    for (let i = 0; i < 100; i++) row = { a: [row] };
    expect(isEqual(toPayload(row), row)).toBe(true);
  });
});
