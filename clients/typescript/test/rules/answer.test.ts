import { beforeEach, describe, expect, test } from 'vitest';
import { answer, wanted } from '../../src/rules/answer.ts';
import { type Entry, type Synced, see } from '../../src/rules/view.ts';
import type { PushResult, Winner } from '../../src/wire.ts';
import { TestAuthor } from '../support/author.ts';
import { patch, put, remove, revision, synced } from '../support/record.ts';

let author = new TestAuthor();
beforeEach(() => {
  author = new TestAuthor();
});

/** What the answer to one of the entries does. */
function answerTo(entry: Entry, entries: Entry[], server: Synced | undefined, result: Partial<PushResult>, cursor = 0) {
  const record = { synced: server, entries };
  const full = { opId: entry.op.stamp.opId, success: true, ...result };
  return answer(record, entry.op, full, record, cursor, author);
}

function winner(kind: 'put' | 'delete', serverVersion: number, clock: number, more: Partial<Winner> = {}): Winner {
  return { kind, serverVersion, revision: revision(clock, 'theirs', 'other'), ...more };
}

const sent = { sent: true };
const created = { sent: true, unknowing: true };

describe('an op that was stored', () => {
  test('applied_stays_until_a_pull_returns_it', () => {
    const mine = put(1, 'mine', { a: 1 }, sent);
    const { entries, synced, finding } = answerTo(mine, [mine], undefined, { serverVersion: 5, applied: true });
    expect(entries).toEqual([{ ...mine, answered: 5 }]);
    // Replies to pushes never write what is synced.
    expect(synced).toBeUndefined();
    expect(finding).toBeUndefined();
  });

  test('not_applied_stays_too_and_remembers_the_version_of_its_winner', () => {
    const mine = put(1, 'mine', { a: 1 }, sent);
    const { entries, synced } = answerTo(mine, [mine], undefined, { serverVersion: 5, applied: false, winner: winner('put', 9, 2) });
    expect(entries[0]!.answered).toBe(9);
    expect(synced).toEqual({ version: 0, register: null, newest: null, payload: null, clock: 2 });
  });

  test('a_replay_is_answered_like_the_first_time', () => {
    const mine = put(1, 'mine', { a: 1 }, sent);
    const { entries } = answerTo(mine, [mine], undefined, { serverVersion: 3, applied: true, replayed: true });
    expect(entries[0]!.answered).toBe(3);
  });

  test('with_a_version_that_the_cursor_has_passed_leaves', () => {
    const mine = put(1, 'mine', { a: 1 }, sent);
    const told = (result: Partial<PushResult>, cursor: number) => answerTo(mine, [mine], undefined, result, cursor).entries.length;
    expect(told({ serverVersion: 5, applied: true }, 5)).toBe(0);
    expect(told({ serverVersion: 5, applied: true }, 4)).toBe(1);
    const lost = { serverVersion: 7, applied: false, winner: winner('put', 5, 2) };
    expect(told(lost, 5)).toBe(0);
    expect(told(lost, 4)).toBe(1);
    const overtaken = { serverVersion: 5, applied: false, winner: winner('put', 7, 2) };
    expect(told(overtaken, 5)).toBe(0);
    expect(told(overtaken, 4)).toBe(1);
  });

  test('with_the_row_of_an_own_table_shows_it_and_stays_as_it_was_made', () => {
    const mine = put(1, 'mine', { a: 1 }, sent);
    const { entries } = answerTo(mine, [mine], undefined, { serverVersion: 5, applied: true, payload: { a: 1, total: 2 } });
    expect(entries[0]!.op).toBe(mine.op);
    expect(see(undefined, entries).payload).toEqual({ a: 1, total: 2 });
  });

  test('that_was_refused_for_now_before_is_so_no_longer', () => {
    const mine = put(1, 'mine', { a: 1 }, { sent: true, retry: 'no parent' });
    expect(answerTo(mine, [mine], undefined, { serverVersion: 5, applied: true }).entries[0]).not.toHaveProperty('retry');
  });

  test('is_no_longer_one_whose_author_knew_nothing', () => {
    const mine = put(1, 'mine', { a: 1 }, created);
    const { entries } = answerTo(mine, [mine], undefined, { serverVersion: 5, applied: true });
    expect(entries[0]).not.toHaveProperty('unknowing');
  });

  test('and_was_taken_back_meanwhile_changes_nothing', () => {
    const other = put(2, 'other', { a: 1 }, sent);
    const gone = put(1, 'gone', { a: 1 }, sent);
    expect(answerTo(gone, [other], undefined, { serverVersion: 5, applied: true })).toEqual({ entries: [other], synced: undefined });
  });

  test('leaves_other_ops_of_the_record_alone', () => {
    const [first, second, third] = [put(1, '1', { a: 1 }, sent), put(2, '2', { a: 2 }, sent), put(3, '3', { a: 3 })] as const;
    const { entries } = answerTo(second, [first, second, third], undefined, { serverVersion: 5, applied: true });
    expect(entries[0]).toBe(first);
    expect(entries[1]!.answered).toBe(5);
    expect(entries[2]).toBe(third);
  });

  test('makes_the_clock_of_its_winner_known_and_never_a_lower_one', () => {
    const mine = put(1, 'mine', { a: 1 }, sent);
    const server = synced(4, 'put', { a: 0 });
    expect(answerTo(mine, [mine], server, { serverVersion: 5, applied: false, winner: winner('put', 9, 8) }).synced).toEqual({ ...server, clock: 8 });
    expect(answerTo(mine, [mine], server, { serverVersion: 5, applied: false, winner: winner('put', 9, 3) }).synced).toBe(server);
  });
});

describe('a put that lost at its turn to a delete', () => {
  const lostToDelete = { serverVersion: 5, applied: false, winner: winner('delete', 3, 4) };

  test('made_without_knowing_the_record_is_made_again_above_the_delete', () => {
    const mine = put(1, 'mine', { a: 1 }, created);
    const { entries, finding } = answerTo(mine, [mine], undefined, lostToDelete);
    expect(entries).toEqual([{
      op: {
        tableName: 't', pk: 'p', operation: 'put', payload: { a: 1 }, parent: 'theirs',
        stamp: { clock: 5, hlc: '0001:me', opId: 'op1', deviceId: 'me' },
      },
      sent: false,
    }]);
    expect(finding).toBeUndefined();
  });

  test('is_made_again_only_once', () => {
    const mine = put(1, 'mine', { a: 1 }, created);
    const [again] = answerTo(mine, [mine], undefined, lostToDelete).entries;
    const next = answerTo(again!, [again!], undefined, { serverVersion: 8, applied: false, winner: winner('delete', 7, 9) });
    expect(next.entries).toEqual([{ ...again, answered: 8 }]);
    expect(next.finding).toEqual({ kind: 'lost', mine: { a: 1 }, theirs: null });
  });

  test('is_made_again_with_the_latest_payload_and_its_patches_leave', () => {
    const mine = put(1, 'mine', { a: 1, b: 1 }, created);
    const edited = patch(2, 'edit', mine, { b: 2 });
    const { entries } = answerTo(mine, [mine, edited], undefined, lostToDelete);
    expect(entries.map(({ op }) => [op.operation, op.payload])).toEqual([['put', { a: 1, b: 2 }]]);
  });

  test('is_made_again_with_the_payload_of_a_later_put_and_above_it', () => {
    const mine = put(1, 'mine', { a: 1 }, created);
    const later = put(8, 'later', { a: 2 }, sent);
    const { entries } = answerTo(mine, [mine, later], undefined, lostToDelete);
    expect(entries.map(({ op }) => op.payload)).toEqual([{ a: 2 }, { a: 2 }]);
    expect(entries[1]!.op.stamp.clock).toBe(9);
  });

  test('is_not_made_again_when_the_latest_op_is_a_delete', () => {
    const mine = put(1, 'mine', { a: 1 }, created);
    const deleted = remove(2, 'delete');
    const { entries } = answerTo(mine, [mine, deleted], undefined, lostToDelete);
    expect(entries.map(({ op }) => op.stamp.opId)).toEqual(['mine', 'delete']);
    expect(entries[0]!.answered).toBe(5);
  });

  test('is_not_made_again_when_the_delete_came_later', () => {
    const mine = put(1, 'mine', { a: 1 }, created);
    const { entries, finding } = answerTo(mine, [mine], undefined, { serverVersion: 5, applied: false, winner: winner('delete', 6, 4) });
    expect(entries).toEqual([{ op: mine.op, sent: true, answered: 6 }]);
    expect(finding).toBeUndefined();
  });

  test('is_not_made_again_when_its_author_knew_the_record', () => {
    const mine = put(2, 'mine', { a: 1 }, sent);
    const { entries, finding } = answerTo(mine, [mine], undefined, lostToDelete);
    expect(entries).toEqual([{ ...mine, answered: 5 }]);
    expect(finding).toEqual({ kind: 'lost', mine: { a: 1 }, theirs: null });
  });

  test('is_not_made_again_when_it_lost_to_a_put', () => {
    const mine = put(1, 'mine', { a: 1 }, created);
    const { entries } = answerTo(mine, [mine], undefined, { serverVersion: 5, applied: false, winner: winner('put', 3, 4, { payload: { a: 0 } }) });
    expect(entries.map(({ op }) => op.stamp.opId)).toEqual(['mine']);
  });

  test('answered_before_is_not_made_again_when_a_restore_lets_it_lose', () => {
    const mine = put(1, 'mine', { a: 1 }, created);
    const [answered] = answerTo(mine, [mine], undefined, { serverVersion: 5, applied: true }).entries;
    const { answered: _, ...again } = answered!;
    const { entries } = answerTo(again, [again], undefined, lostToDelete);
    expect(entries.map(({ op }) => op.stamp.opId)).toEqual(['mine']);
  });

  test('is_made_again_as_it_was_when_the_reply_came_though_the_reply_answered_other_ops_first', () => {
    const mine = put(1, 'mine', { a: 1 }, created);
    const edited = patch(2, 'edit', mine, { a: 2 }, sent);
    const before = { synced: undefined, entries: [mine, edited] };
    const first = answer(before, edited.op, { opId: 'edit', success: false, errorCode: 'OVERSIZED' }, before, 0, author);
    const { entries } = answer(first, mine.op, { opId: 'mine', success: true, ...lostToDelete }, before, 0, author);
    expect(entries.map(({ op }) => op.payload)).toEqual([{ a: 2 }]);
  });
});

describe('what somebody else won', () => {
  const theirs = winner('put', 3, 4, { payload: { a: 'theirs' } });

  test('at_its_turn_is_a_loss_that_the_user_is_told_of', () => {
    const mine = put(2, 'mine', { a: 'mine' }, sent);
    const { finding } = answerTo(mine, [mine], undefined, { serverVersion: 5, applied: false, winner: theirs });
    expect(finding).toEqual({ kind: 'lost', mine: { a: 'mine' }, theirs: { a: 'theirs' } });
  });

  test('without_its_payload_is_told_without', () => {
    const mine = put(2, 'mine', { a: 'mine' }, sent);
    const { finding } = answerTo(mine, [mine], undefined, { serverVersion: 5, applied: false, winner: winner('put', 3, 4) });
    expect(finding).toEqual({ kind: 'lost', mine: { a: 'mine' }, theirs: undefined });
  });

  test('is_no_loss_when_it_is_the_same_value', () => {
    const mine = put(2, 'mine', { a: 'theirs' }, sent);
    expect(answerTo(mine, [mine], undefined, { serverVersion: 5, applied: false, winner: theirs }).finding).toBeUndefined();
    const deleted = { ...remove(2, 'mine'), sent: true };
    expect(answerTo(deleted, [deleted], undefined, { serverVersion: 5, applied: false, winner: winner('delete', 3, 4) }).finding).toBeUndefined();
  });

  test('is_no_loss_when_this_device_won_it', () => {
    const mine = put(2, 'mine', { a: 'mine' }, sent);
    const own = { ...theirs, revision: revision(4, 'again', 'me') };
    expect(answerTo(mine, [mine], undefined, { serverVersion: 5, applied: false, winner: own }).finding).toBeUndefined();
  });

  test('later_than_the_edit_is_no_loss_of_it', () => {
    const mine = put(2, 'mine', { a: 'mine' }, sent);
    expect(answerTo(mine, [mine], undefined, { serverVersion: 5, applied: false, winner: { ...theirs, serverVersion: 6 } }).finding).toBeUndefined();
  });

  test('is_told_with_the_last_op_of_the_record_alone', () => {
    const [first, last] = [put(2, 'first', { a: 1 }, sent), put(3, 'last', { a: 2 }, sent)];
    const result = { serverVersion: 5, applied: false, winner: theirs };
    expect(answerTo(first!, [first!, last!], undefined, result).finding).toBeUndefined();
    expect(answerTo(last!, [first!, last!], undefined, result).finding).toMatchObject({ mine: { a: 2 } });
  });

  test('of_single_fields_is_a_loss_once', () => {
    const server = synced(1, 'put', { a: 0, b: 0 });
    const mine = patch(2, 'mine', server, { a: 1, b: 1 }, sent);
    const result = { serverVersion: 5, applied: true, lost: ['b'] };
    expect(answerTo(mine, [mine], server, result).finding).toEqual({ kind: 'lost', mine: { a: 1, b: 1 }, fields: ['b'] });
    expect(answerTo(mine, [mine], server, { ...result, replayed: true }).finding).toBeUndefined();
  });
});

describe('an op that was refused', () => {
  test.each(['VALIDATION_ERROR', 'OVERSIZED', 'CONFLICT', 'REJECTED', 'READ_ONLY', 'UNAUTHORIZED', 'CONSTRAINT'])('%s_is_final', (errorCode) => {
    const mine = put(1, 'mine', { a: 1 }, sent);
    const server = synced(1, 'put', { a: 0 });
    const { entries, finding, synced: after } = answerTo(mine, [mine], server, { success: false, errorCode, error: 'no' });
    expect(entries).toEqual([]);
    expect(finding).toEqual({ kind: 'refused', mine: { a: 1 }, theirs: undefined, error: { code: errorCode, message: 'no' } });
    expect(after).toBe(server);
  });

  test('CONSTRAINT_tells_what_chooses_the_text_for_the_user', () => {
    const mine = put(1, 'mine', { a: 1 }, sent);
    const refusal = { success: false, errorCode: 'CONSTRAINT', error: 'taken', sqlState: '23505', constraint: 't_a_key' };
    expect(answerTo(mine, [mine], undefined, refusal).finding!.error).toEqual({
      code: 'CONSTRAINT', message: 'taken', sqlState: '23505', constraint: 't_a_key',
    });
  });

  test('CONSTRAINT_with_retry_stays_and_remembers_why', () => {
    const mine = put(1, 'mine', { a: 1 }, created);
    const refusal = { success: false, errorCode: 'CONSTRAINT', retry: true, error: 'no parent', winner: winner('delete', 3, 4) };
    const { entries, finding, synced: after } = answerTo(mine, [mine], undefined, refusal);
    expect(entries).toEqual([{ ...mine, retry: 'no parent' }]);
    expect(finding).toBeUndefined();
    expect(after!.clock).toBe(4);
  });

  test('a_winner_beside_a_refusal_is_what_the_record_is', () => {
    const mine = put(1, 'mine', { a: 1 }, sent);
    const refusal = { success: false, errorCode: 'REJECTED', winner: winner('put', 3, 4, { payload: { a: 0 } }) };
    const { finding, synced: after } = answerTo(mine, [mine], undefined, refusal);
    expect(finding!.theirs).toEqual({ a: 0 });
    expect(after).toMatchObject({ version: 0, register: null, payload: null, clock: 4 });
  });

  test('without_a_code_has_one_all_the_same', () => {
    const mine = put(1, 'mine', { a: 1 }, sent);
    expect(answerTo(mine, [mine], undefined, { success: false }).finding!.error).toEqual({ code: 'REFUSED', message: '' });
  });

  test('BASE_MISSING_is_not_final_and_waits', () => {
    const base = put(1, 'base', { a: 0 }, { sent: true });
    const mine = patch(2, 'mine', base, { a: 1 }, sent);
    const { entries, finding } = answerTo(mine, [base, mine], undefined, { success: false, errorCode: 'BASE_MISSING' });
    expect(entries).toEqual([base, { ...mine, waits: true }]);
    expect(finding).toBeUndefined();
  });

  test.each(['RECORD_CONFLICT', 'FIELD_CONFLICT'])('%s_is_final_and_tells_what_the_record_became', (errorCode) => {
    const server = synced(1, 'put', { a: 0, b: 0 });
    const mine = patch(2, 'mine', server, { a: 1 }, sent);
    const current = winner('put', 7, 5, { payload: { a: 2, b: 0 } });
    const { entries, finding, synced: after } = answerTo(mine, [mine], server, { success: false, errorCode, current });
    expect(entries).toEqual([]);
    expect(finding).toEqual({ kind: 'changed', mine: { a: 1, b: 0 }, theirs: { a: 2, b: 0 } });
    expect(after).toEqual({ ...server, clock: 5 });
  });

  test('on_condition_of_a_record_that_is_unknown_now_has_nothing_of_theirs', () => {
    const mine = remove(2, 'mine');
    const { finding } = answerTo(mine, [mine], undefined, { success: false, errorCode: 'RECORD_CONFLICT' });
    expect(finding).toEqual({ kind: 'changed', mine: null, theirs: undefined });
  });
});

describe('wanted', () => {
  test('of_a_patch_is_what_is_seen_with_its_fields_whatever_others_made_of_them', () => {
    const server = synced(1, 'put', { a: 0, b: 0 }, { fields: { a: revision(9, 'theirs', 'other') } });
    const mine = patch(2, 'mine', server, { a: 1 });
    expect(wanted(mine.op, { synced: server, entries: [mine] })).toEqual({ a: 1, b: 0 });
  });

  test('of_a_put_is_its_record_with_later_edits_and_without_what_is_synced', () => {
    const mine = put(1, 'mine', { a: 1 });
    const server = synced(9, 'theirs', { c: 1 });
    expect(wanted(mine.op, { synced: server, entries: [mine, patch(2, 'edit', mine, { b: 1 })] })).toEqual({ a: 1, b: 1 });
  });

  test('of_a_delete_is_none', () => {
    const mine = remove(2, 'mine');
    expect(wanted(mine.op, { synced: synced(1, 'put', { a: 1 }), entries: [mine] })).toBeNull();
  });
});
