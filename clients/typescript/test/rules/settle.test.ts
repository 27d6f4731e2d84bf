import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { apply, knowClock, settle } from '../../src/rules/answer.ts';
import { isTaken, syncedOf } from '../../src/rules/snapshot.ts';
import { isHeld, type Synced } from '../../src/rules/view.ts';
import type { Change } from '../../src/wire.ts';
import { record } from '../support/arbitrary.ts';
import { patch, put, remove, revision, stamp, synced } from '../support/record.ts';

const answered = (version: number) => ({ sent: true, answered: version });

describe('settle', () => {
  test('never_lets_go_of_what_was_not_answered', () => {
    fc.assert(fc.property(record, fc.nat(5), fc.nat(5), ({ synced, entries }, cursor, head) => {
      expect(settle(synced, entries, cursor, head)).toEqual({ entries, dropped: [] });
    }));
  });

  test('lets_go_only_of_what_is_held_and_keeps_every_op_as_it_was_made', () => {
    fc.assert(fc.property(record, fc.array(fc.nat(5), { minLength: 6, maxLength: 6 }), fc.nat(5), ({ synced, entries }, versions, cursor) => {
      const some = entries.map((entry, i) => (versions[i]! > 0 ? { ...entry, answered: versions[i]! } : entry));
      const { entries: left, dropped } = settle(synced, some, cursor, 5);
      expect(dropped).toEqual([]);
      const gone = some.filter(({ op }) => !left.some((entry) => entry.op === op));
      expect(gone.every((entry) => entry.answered !== undefined && isHeld(entry.op, synced))).toBe(true);
      expect(some.filter((entry) => entry.answered && isHeld(entry.op, synced))).toEqual(gone);
      expect(left.map(({ op }) => op)).toEqual(some.filter((entry) => !gone.includes(entry)).map(({ op }) => op));
    }));
  });

  test('an_answered_op_leaves_when_synced_holds_it_or_a_higher_one', () => {
    const mine = put(2, 'mine', { a: 1 }, answered(5));
    expect(settle(synced(2, 'mine', { a: 1 }), [mine], 5, 5).entries).toEqual([]);
    expect(settle(synced(3, 'theirs', null), [mine], 5, 5).entries).toEqual([]);
  });

  test('one_that_a_pull_up_to_its_version_did_not_bring_is_pushed_again_as_the_same_op', () => {
    const mine = put(2, 'mine', { a: 1 }, { ...answered(5), stored: { a: 2 } });
    expect(settle(synced(1, 'old', { a: 0 }), [mine], 5, 9).entries).toEqual([{ op: mine.op, sent: true }]);
    expect(settle(synced(1, 'old', { a: 0 }), [mine], 5, 9).entries[0]!.op).toBe(mine.op);
  });

  test('one_above_the_head_is_pushed_again_for_the_server_was_restored', () => {
    const mine = put(2, 'mine', { a: 1 }, answered(5));
    expect(settle(undefined, [mine], 4, 4).entries).toEqual([{ op: mine.op, sent: true }]);
  });

  test('one_above_the_cursor_and_not_above_the_head_stays_as_it_is', () => {
    const mine = put(2, 'mine', { a: 1 }, answered(5));
    expect(settle(undefined, [mine], 4, 5).entries).toEqual([mine]);
  });

  test('a_patch_leaves_when_its_fields_have_its_revision_or_a_higher_one', () => {
    const server = synced(1, 'put', { a: 0, b: 0 });
    const mine = patch(3, 'mine', server, { a: 1, b: 1 }, answered(5));
    const held = { ...server, fields: { a: revision(3, 'mine'), b: revision(4, 'theirs', 'other') } };
    expect(settle(held, [mine], 5, 5).entries).toEqual([]);
    const half = { ...server, fields: { a: revision(3, 'mine') } };
    expect(settle(half, [mine], 5, 5).entries).toEqual([{ op: mine.op, sent: true }]);
  });

  test('a_patch_leaves_when_the_register_is_above_its_base', () => {
    const mine = patch(3, 'mine', synced(1, 'put', { a: 0 }), { a: 1 }, answered(5));
    expect(settle(synced(2, 'theirs', { a: 2 }), [mine], 4, 9).entries).toEqual([]);
  });

  test('an_unanswered_patch_whose_base_was_replaced_stays', () => {
    const mine = patch(3, 'mine', synced(1, 'put', { a: 0 }), { a: 1 }, { sent: true });
    expect(settle(synced(2, 'theirs', { a: 2 }), [mine], 9, 9)).toEqual({ entries: [mine], dropped: [] });
  });

  describe('a patch whose base was missing', () => {
    const base = put(1, 'base', { a: 0 }, { sent: true });
    const mine = patch(2, 'mine', base, { a: 1 }, { sent: true, waits: true });

    test('is_pushed_again_when_its_base_is_synced', () => {
      expect(settle(synced(1, 'base', { a: 0 }), [mine], 5, 5)).toEqual({ entries: [{ op: mine.op, sent: true }], dropped: [] });
    });

    test('is_pushed_again_when_its_base_is_in_the_outbox', () => {
      expect(settle(undefined, [base, mine], 5, 5)).toEqual({ entries: [base, { op: mine.op, sent: true }], dropped: [] });
    });

    test.each<[string, Synced | undefined]>([
      ['unknown', undefined], ['another_put', synced(3, 'theirs', { a: 2 })], ['below_it', synced(1, 'aaa', { a: 2 })],
    ])('leaves_when_what_is_synced_is_%s', (_, server) => {
      expect(settle(server, [mine], 5, 5)).toEqual({ entries: [], dropped: [{ op: mine.op, sent: true }] });
    });

    test('leaves_when_only_another_op_of_the_record_is_in_the_outbox', () => {
      const others = [put(3, 'other', { a: 3 }), remove(1, 'base')];
      expect(settle(undefined, [...others, mine], 5, 5)).toEqual({ entries: others, dropped: [{ op: mine.op, sent: true }] });
    });
  });
});

describe('apply', () => {
  const change = (more: Partial<Change>): Change => ({
    serverVersion: 5, tableName: 't', pk: 'p', op: 'put', applied: true, stamp: stamp(4, 'theirs'), ...more,
  });

  test('a_put_becomes_what_is_synced_and_ends_all_fields', () => {
    const old = synced(1, 'old', { a: 0 }, { fields: { a: revision(9, 'patch') }, clock: 9 });
    expect(apply(old, change({ payload: { b: 1 } }))).toEqual({
      version: 5, register: revision(4, 'theirs'), newest: 'theirs', payload: { b: 1 }, clock: 9,
    });
  });

  test('a_delete_leaves_a_tombstone_whatever_payload_it_has', () => {
    expect(apply(synced(1, 'old', { a: 0 }), change({ op: 'delete', payload: { why: 1 } }))).toEqual({
      version: 5, register: revision(4, 'theirs'), newest: 'theirs', payload: null, clock: 4,
    });
  });

  test('a_patch_brings_the_whole_record_its_base_is_the_register', () => {
    const fields = { a: revision(4, 'theirs') };
    const patched = apply(undefined, change({ op: 'patch', base: revision(2, 'put'), payload: { a: 1, b: 0 }, fields }));
    expect(patched).toEqual({ version: 5, register: revision(2, 'put'), newest: 'theirs', payload: { a: 1, b: 0 }, fields, clock: 4 });
  });

  test.each<[string, Partial<Change>]>([
    ['that_lost', { applied: false, payload: { a: 1 } }],
    ['that_is_older_than_what_is_synced', { serverVersion: 2, payload: { a: 1 } }],
    ['that_is_what_is_synced', { serverVersion: 3, payload: { a: 1 } }],
    ['without_payload_that_was_superseded_in_its_call', { op: 'patch', base: revision(1, 'old') }],
  ])('one_%s_makes_only_its_clock_known', (_, more) => {
    const old = synced(1, 'old', { a: 0 }, { version: 3 });
    expect(apply(old, change(more))).toEqual({ ...old, clock: 4 });
    expect(apply(undefined, change({ ...more, applied: false }))).toEqual({ version: 0, register: null, newest: null, payload: null, clock: 4 });
  });

  test('one_of_a_higher_version_counts_even_if_its_clock_is_lower', () => {
    const old = synced(9, 'old', { a: 0 }, { version: 3 });
    expect(apply(old, change({ payload: { a: 1 } }))).toMatchObject({ payload: { a: 1 }, register: revision(4, 'theirs'), clock: 9 });
  });

  test('changes_nothing_that_it_is_given', () => {
    const old = synced(1, 'old', { a: 0 });
    const before = structuredClone(old);
    apply(old, change({ payload: { a: 1 } }));
    apply(old, change({ applied: false }));
    expect(old).toEqual(before);
  });
});

describe('knowClock', () => {
  test('keeps_the_highest', () => {
    const old = synced(4, 'old', { a: 0 });
    expect(knowClock(old, 4)).toBe(old);
    expect(knowClock(old, 3)).toBe(old);
    expect(knowClock(old, 5)).toEqual({ ...old, clock: 5 });
    expect(knowClock(undefined, 5).clock).toBe(5);
  });
});

describe('syncedOf', () => {
  const item = { tableName: 't', pk: 'p', revision: revision(2, 'put'), serverVersion: 7 };

  test('a_row_is_live_with_its_fields_and_its_newest_entry', () => {
    const fields = { a: revision(4, 'patch') };
    expect(syncedOf({ ...item, kind: 'row', payload: { a: 1 } })).toEqual({ version: 7, register: item.revision, newest: 'put', payload: { a: 1 }, clock: 2 });
    expect(syncedOf({ ...item, kind: 'row', payload: { a: 1 }, fields, opId: 'patch' })).toEqual({
      version: 7, register: item.revision, newest: 'patch', payload: { a: 1 }, clock: 2, fields,
    });
  });

  test('a_tombstone_is_deleted', () => {
    expect(syncedOf({ ...item, kind: 'tombstone' })).toEqual({ version: 7, register: item.revision, newest: 'put', payload: null, clock: 2 });
  });
});

describe('isTaken', () => {
  const isOwn = (hlc: string) => hlc.endsWith(':me');
  const mine = synced(2, 'mine', { a: 1 });
  const theirs = synced(2, 'theirs', { a: 1 }, { register: revision(2, 'theirs', 'other') });

  test('an_own_put_or_delete_that_the_restored_server_does_not_have_is', () => {
    expect(isTaken(mine, undefined, isOwn)).toBe(true);
    expect(isTaken(mine, synced(1, 'older', { a: 0 }), isOwn)).toBe(true);
    expect(isTaken({ ...mine, payload: null }, synced(1, 'older', { a: 0 }), isOwn)).toBe(true);
  });

  test('one_that_it_has_or_that_was_beaten_is_not', () => {
    expect(isTaken(mine, { ...mine }, isOwn)).toBe(false);
    expect(isTaken(mine, synced(3, 'higher', { a: 0 }), isOwn)).toBe(false);
  });

  test('the_edits_of_others_are_not', () => {
    expect(isTaken(theirs, undefined, isOwn)).toBe(false);
    expect(isTaken({ ...theirs, fields: { a: revision(3, 'theirs', 'other') } }, undefined, isOwn)).toBe(false);
    expect(isTaken({ version: 0, register: null, newest: null, payload: null, clock: 4 }, undefined, isOwn)).toBe(false);
  });

  test('an_own_field_that_it_does_not_have_is', () => {
    const patched = { ...theirs, fields: { constructor: revision(3, 'mine') } };
    expect(isTaken(patched, theirs, isOwn)).toBe(true);
    expect(isTaken(patched, undefined, isOwn)).toBe(true);
    expect(isTaken(patched, { ...theirs, fields: { constructor: revision(2, 'older') } }, isOwn)).toBe(true);
    expect(isTaken(patched, { ...patched }, isOwn)).toBe(false);
    expect(isTaken(patched, { ...theirs, fields: { constructor: revision(4, 'higher', 'other') } }, isOwn)).toBe(false);
    // A put that did not know the patch ended it.
    expect(isTaken(patched, synced(5, 'put', { a: 0 }), isOwn)).toBe(false);
  });
});
