import fc from 'fast-check';
import { beforeEach, describe, expect, test } from 'vitest';
import { type EditRules, edit } from '../../src/rules/edit.ts';
import { isEqual } from '../../src/rules/json.ts';
import { compare, revisionOf } from '../../src/rules/revision.ts';
import { type Entry, type Synced, see } from '../../src/rules/view.ts';
import type { Payload } from '../../src/wire.ts';
import { payload, record } from '../support/arbitrary.ts';
import { TestAuthor } from '../support/author.ts';
import { patch, put, remove, revision, synced } from '../support/record.ts';

const key = { tableName: 't', pk: 'p' };
const merge: EditRules = { patches: true, conflicts: 'merge' };
const ask: EditRules = { patches: true, conflicts: 'ask' };
const whole: EditRules = { patches: false, conflicts: 'merge' };
const askWhole: EditRules = { patches: false, conflicts: 'ask' };

let author = new TestAuthor();
beforeEach(() => {
  author = new TestAuthor();
});

/** The record's part of the outbox after an edit, as a device stores it. */
function write(value: Payload | null, server: Synced | undefined, entries: Entry[], rules: EditRules): Entry[] {
  const edited = edit(key, value, server, entries, rules, author);
  if (!edited) return entries;
  const left = entries.filter((entry) => !edited.dropped.includes(entry));
  return edited.added ? [...left, edited.added] : left;
}

describe('an edit of any record', () => {
  const rules = fc.record({ patches: fc.boolean(), conflicts: fc.constantFrom('merge' as const, 'ask' as const) });
  const value = fc.option(payload);
  // Values near to what is seen are the usual edits.
  const any = fc.tuple(record, rules, value, fc.subarray(['a', 'b', 'c', '__proto__', 'constructor'])).map(([state, rules, value, changed]) => {
    const { payload } = see(state.synced, state.entries);
    const near = payload && value && Object.fromEntries([
      ...Object.entries(payload),
      ...Object.entries(value).filter(([name]) => changed.includes(name)),
    ]);
    return { ...state, rules, value: near ?? value };
  });

  test('shows_exactly_the_value_that_was_written', () => {
    fc.assert(fc.property(any, ({ synced, entries, rules, value }) => {
      expect(isEqual(see(synced, write(value, synced, entries, rules)).payload, value)).toBe(true);
    }), { numRuns: 3000 });
  });

  test('makes_nothing_exactly_when_nothing_changes', () => {
    fc.assert(fc.property(any, ({ synced, entries, rules, value }) => {
      const edited = edit(key, value, synced, entries, rules, author);
      expect(edited === null).toBe(isEqual(see(synced, entries).payload, value));
    }), { numRuns: 1000 });
  });

  test('is_one_above_the_highest_clock_known_unless_it_goes_into_a_put', () => {
    fc.assert(fc.property(any, ({ synced, entries, rules, value }) => {
      const edited = edit(key, value, synced, entries, rules, author);
      const op = edited?.added?.op;
      if (!op) return;
      const into = edited.dropped.find((entry) => entry.op.stamp.opId === op.stamp.opId);
      if (into) expect(op.stamp).toEqual(into.op.stamp);
      else expect(op.stamp.clock).toBe(see(synced, entries).clock + 1);
    }), { numRuns: 1000 });
  });

  test('leaves_alone_what_was_sent_or_has_a_condition', () => {
    fc.assert(fc.property(any, ({ synced, entries, rules, value }) => {
      const before = structuredClone(entries);
      const dropped = edit(key, value, synced, entries, rules, author)?.dropped ?? [];
      expect(dropped.filter(({ sent, op }) => sent || op.expected !== undefined)).toEqual([]);
      // What it drops are the last ones.
      expect(dropped).toEqual(entries.slice(entries.length - dropped.length));
      expect(entries).toEqual(before);
    }), { numRuns: 1000 });
  });

  test('by_a_patch_writes_only_fields_that_change_or_that_an_unsent_patch_of_the_same_put_holds', () => {
    fc.assert(fc.property(any, ({ synced, entries, rules, value }) => {
      const seen = see(synced, entries);
      const edited = edit(key, value, synced, entries, rules, author);
      const op = edited?.added?.op;
      if (op?.operation !== 'patch') return;
      expect(compare(op.base, seen.register)).toBe(0);
      expect(compare(op.stamp, op.base)).toBeGreaterThan(0);
      const [last] = edited!.dropped;
      for (const [name, member] of Object.entries(op.payload!)) {
        const changes = !Object.hasOwn(seen.payload!, name) || !isEqual(seen.payload![name], member);
        const isKept = last && compare(new Map(Object.entries(seen.fields)).get(name), last.op.stamp) === 0;
        expect(changes || isKept).toBe(true);
        expect(isEqual(member, value![name])).toBe(true);
      }
    }), { numRuns: 2000 });
  });

  test('has_a_parent_unless_it_is_a_patch_and_it_is_what_its_author_saw', () => {
    fc.assert(fc.property(any, ({ synced, entries, rules, value }) => {
      const edited = edit(key, value, synced, entries, rules, author);
      const op = edited?.added?.op;
      if (!op || edited.dropped.some((entry) => entry.op.stamp.opId === op.stamp.opId)) return;
      if (op.operation === 'patch') expect(op.parent).toBeUndefined();
      else expect(op.parent).toBe(see(synced, entries.slice(0, entries.length - edited.dropped.length)).newest ?? 'none');
    }));
  });

  test('does_nothing_of_what_a_table_without_patches_or_conditions_does_not_know', () => {
    fc.assert(fc.property(any, ({ synced, entries, rules, value }) => {
      const op = edit(key, value, synced, entries, rules, author)?.added?.op;
      if (!rules.patches) expect(op?.operation).not.toBe('patch');
      if (rules.conflicts !== 'ask') expect(op?.expected).toBeUndefined();
    }));
  });
});

describe('a record becomes an op', () => {
  test('a_new_record_is_a_put_without_parent_whose_author_knew_nothing', () => {
    const [entry] = write({ a: 1 }, undefined, [], merge);
    expect(entry).toEqual({
      op: {
        ...key, operation: 'put', payload: { a: 1 }, parent: 'none',
        stamp: { clock: 1, hlc: '0001:me', opId: 'op1', deviceId: 'me' },
      },
      sent: false,
      unknowing: true,
    });
  });

  test('a_record_of_which_only_a_clock_is_known_is_new_and_above_that_clock', () => {
    const known = { version: 0, register: null, newest: null, payload: null, clock: 7 };
    const [entry] = write({ a: 1 }, known, [], merge);
    expect(entry).toMatchObject({ unknowing: true, op: { parent: 'none', stamp: { clock: 8 } } });
  });

  test('a_changed_field_is_a_patch_of_the_put', () => {
    const server = synced(3, 'put', { a: 1, b: { c: [1] } });
    const [entry] = write({ a: 2, b: { c: [1] } }, server, [], merge);
    expect(entry!.op).toMatchObject({ operation: 'patch', payload: { a: 2 }, base: revision(3, 'put'), stamp: { clock: 4 } });
    expect(entry).not.toHaveProperty('unknowing');
  });

  test('a_nested_object_is_written_whole', () => {
    const [entry] = write({ a: { b: 1, c: 3 } }, synced(1, 'put', { a: { b: 1, c: 2 } }), [], merge);
    expect(entry!.op.payload).toEqual({ a: { b: 1, c: 3 } });
  });

  test.each<[string, Payload, Payload]>([
    ['takes_a_field_away', { a: 1, b: 1 }, { a: 2 }],
    ['has_a_field_without_a_name', { a: 1 }, { a: 1, '': 1 }],
    ['has_a_field_with_nul', { a: 1 }, { a: 1, 'b\0': 1 }],
    ['has_a_field_of_more_than_128_bytes', { a: 1 }, { a: 1, ['ü'.repeat(65)]: 1 }],
  ])('an_edit_that_%s_is_a_put', (_, before, after) => {
    const [entry] = write(after, synced(3, 'put', before), [], merge);
    expect(entry!.op).toMatchObject({ operation: 'put', payload: after, parent: 'put' });
    expect(entry).not.toHaveProperty('unknowing');
  });

  test('a_field_of_128_bytes_may_be_patched', () => {
    const name = 'ü'.repeat(64);
    const [entry] = write({ a: 1, [name]: 1 }, synced(3, 'put', { a: 1 }), [], merge);
    expect(entry!.op).toMatchObject({ operation: 'patch', payload: { [name]: 1 } });
  });

  test('a_record_that_was_deleted_comes_back_by_a_put_that_knows_the_delete', () => {
    const [entry] = write({ a: 1 }, synced(3, 'delete', null), [], merge);
    expect(entry!.op).toMatchObject({ operation: 'put', parent: 'delete', stamp: { clock: 4 } });
    expect(entry).not.toHaveProperty('unknowing');
  });

  test('a_delete_has_no_payload_and_names_the_newest_entry', () => {
    const server = synced(3, 'put', { a: 1 }, { newest: 'patch', fields: { a: revision(6, 'patch', 'other') } });
    const [entry] = write(null, server, [], merge);
    expect(entry!.op).toEqual({
      ...key, operation: 'delete', parent: 'patch', stamp: { clock: 7, hlc: '0001:me', opId: 'op1', deviceId: 'me' },
    });
  });

  test('a_table_without_patches_is_edited_by_puts', () => {
    const [entry] = write({ a: 2, b: 1 }, synced(3, 'put', { a: 1, b: 1 }), [], whole);
    expect(entry!.op).toMatchObject({ operation: 'put', payload: { a: 2, b: 1 }, parent: 'put' });
  });
});

describe('ops that were never sent', () => {
  test('a_patch_goes_into_the_put_that_is_its_base_with_the_stamp_of_the_put', () => {
    const created = write({ a: 1, b: 1 }, undefined, [], merge);
    const edited = write({ a: 2, b: 1, c: 1 }, undefined, created, merge);
    expect(edited).toEqual([{ ...created[0], op: { ...created[0]!.op, payload: { a: 2, b: 1, c: 1 } } }]);
    expect(edited[0]!.unknowing).toBe(true);
  });

  test('a_patch_goes_into_one_of_the_same_base_with_the_later_stamp', () => {
    const server = synced(1, 'put', { a: 1, b: 1, c: 1 });
    const first = write({ a: 2, b: 2, c: 1 }, server, [], merge);
    const second = write({ a: 3, b: 2, c: 3 }, server, first, merge);
    expect(second).toHaveLength(1);
    expect(second[0]!.op.payload).toEqual({ a: 3, b: 2, c: 3 });
    expect(second[0]!.op.stamp).toMatchObject({ clock: 3, opId: 'op2' });
  });

  test('of_the_earlier_patch_only_fields_that_are_seen_go_into_the_later', () => {
    const server = synced(1, 'put', { a: 1, b: 1, c: 1 }, { fields: { b: revision(9, 'theirs', 'other') } });
    const old = patch(3, 'mine', server, { a: 2, b: 2 });
    const [entry] = write({ a: 2, b: 1, c: 2 }, server, [old], merge);
    expect(entry!.op.payload).toEqual({ a: 2, c: 2 });
    expect(entry!.op.stamp.clock).toBe(10);
  });

  test.each<[string, Partial<Entry>, { expected?: string }]>([
    ['was_sent', { sent: true }, {}],
    ['has_a_condition', {}, { expected: 'put' }],
  ])('one_that_%s_stays_as_it_is', (_, more, condition) => {
    const server = synced(1, 'put', { a: 1 });
    const old = patch(2, 'old', server, { a: 2 }, more);
    Object.assign(old.op, condition);
    const entries = write({ a: 3 }, server, [old], merge);
    expect(entries).toHaveLength(2);
    expect(entries[0]).toBe(old);
  });

  test('a_patch_does_not_go_into_one_of_another_base', () => {
    const old = patch(3, 'old', synced(1, 'old-put', { a: 1 }), { a: 2 });
    const entries = write({ a: 4 }, synced(2, 'new-put', { a: 3 }), [old], merge);
    expect(entries[0]).toBe(old);
    expect(entries[1]!.op).toMatchObject({ operation: 'patch', base: revision(2, 'new-put') });
  });

  test('a_put_takes_the_place_of_all_at_the_end_and_of_none_before_a_sent_one', () => {
    const first = put(1, 'first', { a: 1 });
    const sent = put(2, 'sent', { a: 2 }, { sent: true });
    const entries = write({ b: 1 }, undefined, [first, sent, patch(3, 'p', sent, { a: 3 }), put(4, 'last', { a: 4 })], whole);
    expect(entries.map(({ op }) => op.stamp.opId)).toEqual(['first', 'sent', 'op1']);
    expect(entries[2]!.op).toMatchObject({ operation: 'put', parent: 'sent', stamp: { clock: 5 } });
  });

  test('a_record_made_and_deleted_before_anything_was_sent_leaves_nothing', () => {
    const created = write({ a: 1 }, undefined, [], merge);
    expect(write(null, undefined, created, merge)).toEqual([]);
    expect(write(null, undefined, [put(1, 'mine', { a: 1 }, { unknowing: true }), patch(2, 'p', created[0]!, { a: 2 })], merge)).toEqual([]);
  });

  test('a_record_made_deleted_and_made_again_is_still_one_whose_author_knew_nothing', () => {
    const again = write({ a: 2 }, undefined, write({ a: 1 }, undefined, [], whole), whole);
    expect(again).toHaveLength(1);
    expect(again[0]).toMatchObject({ unknowing: true, op: { parent: 'none' } });
  });

  test('a_delete_of_what_was_sent_is_sent_too', () => {
    const entries = write(null, undefined, [put(1, 'sent', { a: 1 }, { sent: true })], merge);
    expect(entries[1]!.op).toMatchObject({ operation: 'delete', parent: 'sent', stamp: { clock: 2 } });
  });

  test('a_delete_that_is_taken_back_becomes_a_put_on_what_was_there_before', () => {
    const server = synced(3, 'put', { a: 1 });
    const entries = write({ a: 2 }, server, [remove(4, 'delete')], merge);
    expect(entries).toHaveLength(1);
    expect(entries[0]!.op).toMatchObject({ operation: 'put', parent: 'put', stamp: { clock: 5 } });
  });
});

describe('edits on condition', () => {
  test('a_patch_names_the_holder_of_each_field', () => {
    const server = synced(1, 'put', { a: 1, b: 1 }, { newest: 'theirs', fields: { a: revision(2, 'theirs', 'other') } });
    const [entry] = write({ a: 2, b: 2, constructor: 1 }, server, [], ask);
    expect(entry!.op.expected).toEqual({ a: 'theirs', b: 'put', constructor: 'put' });
  });

  test('patches_are_not_merged_and_build_on_each_other', () => {
    const server = synced(1, 'put', { a: 1 });
    const entries = write({ a: 3 }, server, write({ a: 2 }, server, [], ask), ask);
    expect(entries.map(({ op }) => op.expected)).toEqual([{ a: 'put' }, { a: 'op1' }]);
  });

  test('a_new_record_expects_none_a_replaced_one_its_newest_entry', () => {
    expect(write({ a: 1 }, undefined, [], askWhole)[0]!.op).toMatchObject({ parent: 'none', expected: 'none' });
    expect(write({ a: 2 }, synced(1, 'put', { a: 1 }), [], askWhole)[0]!.op).toMatchObject({ parent: 'put', expected: 'put' });
    expect(write(null, synced(1, 'put', { a: 1 }), [], ask)[0]!.op).toMatchObject({ parent: 'put', expected: 'put' });
  });

  test('one_that_brings_a_record_back_expects_none_and_knows_the_delete', () => {
    expect(write({ a: 1 }, synced(1, 'delete', null), [], ask)[0]!.op).toMatchObject({ parent: 'delete', expected: 'none' });
  });

  test('a_delete_after_a_delete_that_was_taken_back_still_names_what_it_saw', () => {
    const server = synced(1, 'put', { a: 1 });
    const deleted = write(null, server, [], ask);
    const back = write({ a: 2 }, server, deleted, ask);
    expect(back.map(({ op }) => op.expected)).toEqual(['put', 'none']);
    expect(write(null, server, back, ask)[2]!.op).toMatchObject({ operation: 'delete', expected: 'op2', parent: 'op2' });
  });

  test.each<[string, (server: Synced) => Entry]>([
    ['unconditional_op', (server) => patch(2, 'old', server, { a: 2 })],
    ['patch_with_a_condition_on_fields', (server) => {
      const entry = patch(2, 'old', server, { a: 2 });
      entry.op.expected = { a: 'put' };
      return entry;
    }],
  ])('a_put_or_delete_behind_an_own_%s_has_no_condition', (_, before) => {
    const server = synced(1, 'put', { a: 1 });
    expect(write(null, server, [before(server)], ask)[1]!.op.expected).toBeUndefined();
    expect(write({ b: 1 }, server, [before(server)], askWhole)[1]!.op.expected).toBeUndefined();
  });

  test('a_patch_behind_an_unconditional_one_has_one', () => {
    const server = synced(1, 'put', { a: 1 });
    const entries = write({ a: 3 }, server, [patch(2, 'old', server, { a: 2 })], ask);
    expect(entries[1]!.op.expected).toEqual({ a: 'old' });
    expect(revisionOf(entries[1]!.op.base!)).toEqual(revision(1, 'put'));
  });
});
