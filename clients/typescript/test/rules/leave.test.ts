import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { apply, isNews, markOf, settle } from '../../src/rules/answer.ts';
import { edit } from '../../src/rules/edit.ts';
import { isHeld, see } from '../../src/rules/view.ts';
import type { Change } from '../../src/wire.ts';
import { record } from '../support/arbitrary.ts';
import { TestAuthor } from '../support/author.ts';
import { patch, put, revision, stamp, synced } from '../support/record.ts';

const leave = (more: Partial<Change> = {}): Change => ({
  serverVersion: 5, tableName: 't', pk: 'p', op: 'leave', applied: true, stamp: stamp(4, 'theirs'), ...more,
});
const mark = { version: 5, register: revision(4, 'theirs'), newest: null, payload: null, clock: 4, left: 'theirs' };

describe('a leave', () => {
  test('leaves_a_mark', () => {
    expect(apply(synced(1, 'old', { a: 0 }, { scope: 's' }), leave())).toEqual(mark);
    expect(apply(undefined, leave())).toEqual(mark);
  });

  test('by_a_patch_leaves_the_patchs_base_as_register', () => {
    expect(apply(synced(1, 'old', { a: 0 }), leave({ base: revision(1, 'old') })))
      .toEqual({ ...mark, register: revision(1, 'old') });
  });

  test('that_is_not_newer_changes_nothing_but_the_clock', () => {
    const old = synced(1, 'old', { a: 0 }, { version: 5 });
    expect(apply(old, leave())).toEqual({ ...old, clock: 4 });
  });

  test('after_another_one_moves_the_mark', () => {
    expect(apply(mark, leave({ serverVersion: 8, stamp: stamp(7, 'later') })))
      .toEqual({ ...mark, version: 8, register: revision(7, 'later'), clock: 7, left: 'later' });
  });
});

describe('a mark', () => {
  test.each([[4, false], [5, true], [6, true]])('is_replaced_by_what_has_version_%i: %s', (version, isReplaced) => {
    expect(isNews(mark, version)).toBe(isReplaced);
    const change = leave({ op: 'put', serverVersion: version, payload: { a: 1 }, scope: 's', stamp: stamp(9, 'put') });
    expect(apply(mark, change).payload).toEqual(isReplaced ? { a: 1 } : null);
  });

  test('of_a_record_that_is_there_is_not', () => {
    expect(isNews(synced(1, 'old', { a: 0 }, { version: 5 }), 5)).toBe(false);
  });

  test('hides_and_settles_ops_as_a_delete_of_its_register_does', () => {
    fc.assert(fc.property(record, ({ synced: known, entries }) => {
      fc.pre(!!known?.register);
      const left = markOf({ ...known!, newest: 'nobodys' });
      const deleted = { ...known!, payload: null, fields: {} };
      expect(see(left, entries).payload).toEqual(see(deleted, entries).payload);
      for (const { op } of entries) expect(isHeld(op, left)).toBe(isHeld(op, deleted));
    }));
  });

  test('settles_the_op_that_took_the_record_out', () => {
    const base = synced(1, 'old', { a: 0 });
    const mine = patch(4, 'mine', base, { in: 'other' }, { sent: true, answered: 5 });
    const left = apply(base, leave({ base: revision(1, 'old'), stamp: stamp(4, 'mine') }));
    expect(settle(left, [mine], 5, 5).entries).toEqual([]);
    const later = patch(4, 'later', base, { a: 1 }, { sent: true, answered: 4 });
    expect(settle(left, [later], 5, 5).entries).toEqual([{ op: later.op, sent: true }]);
  });

  test('counts_as_not_known', () => {
    const { added } = edit({ tableName: 't', pk: 'p' }, { a: 1 }, mark, [], { patches: true }, new TestAuthor())!;
    expect(added).toMatchObject({ unknowing: true, op: { operation: 'put', parent: 'none', stamp: { clock: 5 } } });
    expect(edit({ tableName: 't', pk: 'p' }, null, mark, [], {}, new TestAuthor())).toBeNull();
  });

  test('lets_a_patch_wait_for_its_base_no_longer', () => {
    const mine = patch(5, 'mine', put(4, 'theirs', {}), { a: 1 }, { sent: true, waits: true });
    expect(settle(mark, [mine], 5, 5)).toEqual({ entries: [{ op: mine.op, sent: true }], dropped: [] });
  });
});
