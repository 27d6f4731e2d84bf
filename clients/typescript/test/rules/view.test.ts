import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { isEqual } from '../../src/rules/json.ts';
import { compare, isSame } from '../../src/rules/revision.ts';
import { isHeld, see } from '../../src/rules/view.ts';
import { fieldName, model, payload, record } from '../support/arbitrary.ts';
import { patch, put, remove, revision, synced } from '../support/record.ts';

describe('see', () => {
  test('shows_the_highest_register_and_per_field_the_highest_patch_of_it', () => {
    fc.assert(fc.property(record, ({ synced, entries }) => {
      const view = see(synced, entries);
      const wanted = model(synced, entries);
      expect(isEqual(view.payload, wanted.payload)).toBe(true);
      expect(compare(view.register, wanted.register)).toBe(0);
      if (view.payload) expect(new Map(Object.entries(view.fields))).toEqual(wanted.fields);
    }), { numRuns: 2000 });
  });

  test('sees_the_same_in_any_order_of_entries', () => {
    const shuffled = record.chain(({ synced, entries }) => fc.record({
      synced: fc.constant(synced),
      entries: fc.constant(entries),
      other: fc.shuffledSubarray(entries, { minLength: entries.length }),
    }));
    fc.assert(fc.property(shuffled, ({ synced, entries, other }) => {
      expect(see(synced, other)).toEqual(see(synced, entries));
    }));
  });

  test('names_the_newest_entry_and_the_highest_clock', () => {
    fc.assert(fc.property(record, ({ synced, entries }) => {
      const view = see(synced, entries);
      const own = entries.map(({ op }) => op.stamp);
      // Of those that hold something the highest came last.
      const holding = own.filter((one) => isSame(view.register, one)
        || (view.payload && Object.values(view.fields).some((holder) => isSame(holder, one))));
      const last = holding.toSorted(compare).at(-1);
      if (last || view.payload) expect(view.newest).toBe(last?.opId ?? synced?.newest ?? null);
      const clocks = [synced?.clock ?? 0, ...Object.values(synced?.fields ?? {}).map(({ clock }) => clock), ...own.map(({ clock }) => clock)];
      expect(view.clock).toBe(Math.max(...clocks));
    }));
  });

  test('changes_neither_what_is_synced_nor_the_entries', () => {
    fc.assert(fc.property(record, ({ synced, entries }) => {
      const before = structuredClone({ synced, entries });
      see(synced, entries);
      expect({ synced, entries }).toEqual(before);
    }));
  });

  test('of_nothing_is_nothing', () => {
    expect(see(undefined, [])).toEqual({ payload: null, register: null, fields: {}, newest: null, clock: 0 });
  });

  test('does_not_lay_a_patch_over_another_put_than_its_base', () => {
    const old = put(1, 'old', { a: 1 });
    const server = synced(2, 'new', { a: 2 });
    expect(see(server, [old, patch(3, 'p', old, { a: 3 })]).payload).toEqual({ a: 2 });
  });

  test('does_not_bring_a_deleted_record_back_by_a_patch', () => {
    const tombstone = synced(2, 'delete', null);
    expect(see(tombstone, [patch(3, 'p', tombstone, { a: 3 })]).payload).toBeNull();
  });

  test('counts_clocks_of_fields_as_known', () => {
    const server = synced(2, 'put', { a: 1 }, { fields: { a: revision(7, 'patch', 'other') } });
    expect(see(server, []).clock).toBe(7);
  });

  test('shows_a_row_of_the_server_until_a_pull_has_passed_it', () => {
    const row = { id: 'p', total: 3 };
    const entry = put(5, 'mine', { id: 'p' }, { sent: true, answered: 8, stored: row });
    expect(see(synced(1, 'old', { id: 'old' }, { version: 7 }), [entry]).payload).toEqual(row);
    expect(see(synced(1, 'old', { id: 'old' }, { version: 8 }), [entry]).payload).toEqual({ id: 'p' });
    const server = synced(1, 'old', { id: 'p', n: 1 });
    expect(see(server, [patch(5, 'mine', server, { n: 2 }, { answered: 8, stored: row })]).payload).toEqual(row);
  });

  test('lays_later_edits_over_a_row_of_the_server', () => {
    const entry = put(5, 'mine', { n: 1 }, { sent: true, answered: 8, stored: { n: 1, total: 3 } });
    expect(see(undefined, [entry, patch(6, 'later', entry, { n: 2 })]).payload).toEqual({ n: 2, total: 3 });
  });
});

describe('isHeld', () => {
  test('of_an_op_is_whether_it_could_not_change_what_is_synced_any_more', () => {
    fc.assert(fc.property(record, fc.nat(), ({ synced, entries }, at) => {
      fc.pre(entries.length > 0);
      const { op } = entries[at % entries.length]!;
      const { register, payload, fields } = model(synced, []);
      const order = compare(register, op.base);
      // Nobody edits what is deleted.
      fc.pre(op.operation !== 'patch' || order !== 0 || payload !== null);
      const couldChange = op.operation === 'patch'
        ? order < 0 || (order === 0 && Object.keys(op.payload!).some((name) => compare(fields.get(name), op.stamp) < 0))
        : compare(register, op.stamp) < 0;
      expect(isHeld(op, synced)).toBe(!couldChange);
    }), { numRuns: 1000 });
  });

  test('holds_a_patch_only_with_each_of_its_fields', () => {
    fc.assert(fc.property(payload, payload, fieldName, (value, held, other) => {
      const server = synced(1, 'put', { ...value, ...held });
      const { op } = patch(3, 'mine', server, { ...value, [`own-${other}`]: 1 });
      const names = Object.keys(op.payload!);
      const fields = (some: string[], clock: number) => Object.fromEntries(some.map((name) => [name, revision(clock, clock === 3 ? 'mine' : 'other')]));
      expect(isHeld(op, { ...server, fields: fields(names, 3) })).toBe(true);
      expect(isHeld(op, { ...server, fields: fields(names, 4) })).toBe(true);
      expect(isHeld(op, { ...server, fields: fields(names.slice(1), 4) })).toBe(false);
      expect(isHeld(op, { ...server, fields: { ...fields(names, 4), ...fields(names.slice(-1), 2) } })).toBe(false);
      expect(isHeld(op, server)).toBe(false);
    }));
  });

  test('holds_a_patch_whose_base_was_replaced_or_deleted_and_none_whose_base_is_missing', () => {
    const base = put(2, 'base', { a: 1 });
    const { op } = patch(3, 'mine', base, { a: 2 });
    expect(isHeld(op, synced(4, 'put', { a: 3 }))).toBe(true);
    expect(isHeld(op, synced(4, 'delete', null))).toBe(true);
    expect(isHeld(op, synced(1, 'older', { a: 0 }))).toBe(false);
    expect(isHeld(op, undefined)).toBe(false);
  });

  test('holds_a_put_or_delete_with_itself_or_a_higher_one', () => {
    for (const { op } of [put(2, 'm', { a: 1 }), remove(2, 'm')]) {
      expect(isHeld(op, synced(2, 'm', { a: 1 }))).toBe(true);
      expect(isHeld(op, synced(3, 'a', null))).toBe(true);
      expect(isHeld(op, synced(2, 'l', { a: 1 }))).toBe(false);
      expect(isHeld(op, undefined)).toBe(false);
    }
  });
});
