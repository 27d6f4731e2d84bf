import { beforeEach, describe, expect, test } from 'vitest';
import { SyncError } from '../../src/error.ts';
import type { Op } from '../../src/wire.ts';
import { TestDevice, failure } from '../support/device.ts';
import { FakeServer } from '../support/server.ts';

let server: FakeServer;
let phone: TestDevice;
beforeEach(async () => {
  server = new FakeServer();
  phone = await TestDevice.open(server);
});

const pushed = () => server.named('push').map(({ body }) => (body as Op[]).map(({ pk }) => pk));
const refuse = (code: string, status?: number, message = 'refused') => () => {
  throw new SyncError(code, message, status ? { status } : {});
};

describe('a push', () => {
  test('sends_ops_in_the_order_in_which_they_were_made', async () => {
    await phone.write('notes', 'b', { n: 1 });
    await phone.write('files', 'a', { n: 1 });
    await phone.write('notes', 'a', { n: 1 });
    await phone.write('notes', 'b', { n: 2 });
    await phone.push();
    expect(server.log.map(({ op }) => `${op.tableName}/${op.pk}`)).toEqual(['notes/b', 'files/a', 'notes/a']);
    expect(server.rows('notes')).toEqual({ a: { n: 1 }, b: { n: 2 } });
  });

  test('keeps_an_op_until_a_pull_returns_it', async () => {
    await phone.write('notes', 'a', { n: 1 });
    await phone.push();
    expect(await phone.outbox()).toHaveLength(1);
    expect((await phone.known('notes', 'a')).synced).toBeUndefined();
    await phone.pull();
    expect(await phone.outbox()).toEqual([]);
    expect((await phone.known('notes', 'a')).synced).toMatchObject({ version: 1, payload: { n: 1 } });
  });

  test('of_nothing_is_no_call', async () => {
    await phone.push();
    expect(server.calls).toEqual([]);
  });

  test('is_cut_into_as_many_as_its_limit_says', async () => {
    phone = await TestDevice.open(server, undefined, { pushLimit: 2 });
    await phone.writeAll(['a', 'b', 'c', 'd', 'e'].map((pk) => ['notes', pk, { n: 1 }]));
    await phone.push();
    expect(pushed()).toEqual([['a', 'b'], ['c', 'd'], ['e']]);
  });

  test('is_cut_where_its_ops_would_be_too_long_but_a_long_one_is_sent_alone', async () => {
    const long = { text: 'x'.repeat(600_000) };
    await phone.writeAll([['notes', 'a', { n: 1 }], ['notes', 'b', long], ['notes', 'c', long], ['notes', 'd', { text: 'x'.repeat(1_200_000) }], ['notes', 'e', { n: 1 }]]);
    await phone.push();
    expect(pushed()).toEqual([['a', 'b'], ['c'], ['d'], ['e']]);
  });

  test('remembers_that_an_op_was_sent_before_it_sends_it', async () => {
    await phone.write('notes', 'a', { n: 1 });
    server.next('push', async (answer) => {
      expect((await phone.known('notes', 'a')).entries[0]!.sent).toBe(true);
      return answer();
    });
    await phone.push();
    expect.assertions(1);
  });

  test('that_failed_keeps_the_ops_as_they_were_sent_and_later_edits_apart', async () => {
    await phone.write('notes', 'a', { n: 1 });
    server.loseReply('push');
    await failure(phone.push());
    await phone.write('notes', 'a', { n: 2 });
    const [first] = await phone.outbox();
    await phone.push();
    expect(server.log.map(({ op }) => op.operation)).toEqual(['put', 'patch']);
    expect(server.log[0]!.op).toEqual(first);
    await phone.pull();
    expect(await phone.outbox()).toEqual([]);
    expect(await phone.rows('notes')).toEqual({ a: { n: 2 } });
  });

  test('whose_reply_was_lost_is_sent_again_with_the_same_op_ids', async () => {
    await phone.write('notes', 'a', { n: 1 });
    server.loseReply('push');
    await failure(phone.push());
    await phone.sync();
    const [first, second] = server.named('push');
    expect(second).toEqual(first);
    expect(server.head).toBe(1);
    expect(await phone.outbox()).toEqual([]);
  });

  test('answered_by_something_else_changes_nothing', async () => {
    await phone.write('notes', 'a', { n: 1 });
    server.next('push', () => ({ results: [] }));
    expect(await failure(phone.push())).toMatchObject({ code: 'MALFORMED', remedy: 'later' });
    server.next('push', () => ({}));
    expect((await failure(phone.push())).code).toBe('MALFORMED');
    await phone.sync();
    expect(await phone.outbox()).toEqual([]);
  });

  test('pushes_each_op_once_even_if_it_stays_to_be_pushed_again', async () => {
    server.refuse = () => ({ errorCode: 'CONSTRAINT', retry: true, error: 'no parent' });
    await phone.write('notes', 'a', { n: 1 });
    await phone.push();
    expect(pushed()).toEqual([['a']]);
    await phone.push();
    expect(pushed()).toEqual([['a'], ['a']]);
  });

  test('leaves_what_is_written_meanwhile_to_the_next_one', async () => {
    await phone.write('notes', 'a', { n: 1 });
    const { arrived, release } = server.hold('push');
    const push = phone.push();
    await arrived;
    await phone.write('notes', 'b', { n: 1 });
    release();
    await push;
    expect(pushed()).toEqual([['a']]);
    await phone.push();
    expect(pushed()).toEqual([['a'], ['b']]);
  });

  test('puts_ops_that_wait_for_a_parent_behind_the_others', async () => {
    server.refuse = ({ pk }) => (pk === 'child' ? { errorCode: 'CONSTRAINT', retry: true, error: 'no parent' } : undefined);
    await phone.write('notes', 'child', { n: 1 });
    await phone.push();
    server.refuse = () => undefined;
    await phone.write('notes', 'parent', { n: 1 });
    await phone.push();
    expect(pushed()).toEqual([['child'], ['parent', 'child']]);
  });

  test('tells_what_it_sends_and_what_came_of_it', async () => {
    await phone.write('notes', 'a', { n: 1 });
    await phone.push();
    expect(phone.told.map(({ event }) => event)).toEqual(['captured', 'push', 'pushed']);
    expect(phone.events('pushed')[0]).toMatchObject({ ops: [{ pk: 'a' }], results: [{ success: true, serverVersion: 1 }] });
  });

  test('answers_several_ops_of_a_record_one_after_the_other', async () => {
    phone = await TestDevice.open(server, undefined, { rulesOf: () => ({ patches: true, conflicts: 'ask' }) });
    await phone.write('notes', 'a', { n: 1 });
    await phone.write('notes', 'a', { n: 2 });
    await phone.write('notes', 'a', { n: 3 });
    await phone.push();
    const { entries } = await phone.known('notes', 'a');
    expect(entries.map(({ answered }) => answered)).toEqual([1, 2, 3]);
    await phone.pull();
    expect(await phone.outbox()).toEqual([]);
    expect(await phone.rows('notes')).toEqual({ a: { n: 3 } });
  });
});

describe('a push that is refused as a whole for what is in it', () => {
  test.each([['22P02', 400], ['22P05', 400], ['22021', 400], ['54001', 400], ['54000', 400], ['54000', 413], ['HTTP', 413]])('with_%s_and_status_%i_is_halved', async (code, status) => {
    await phone.writeAll(['a', 'b', 'c', 'bad', 'd'].map((pk) => ['notes', pk, { n: 1 }]));
    server.check = ({ name, body }) => {
      if (name === 'push' && body.some(({ pk }: Op) => pk === 'bad')) refuse(code, status, 'too many ops in one push')();
    };
    await phone.push();
    expect(pushed()).toEqual([['a', 'b', 'c', 'bad', 'd'], ['a', 'b', 'c'], ['bad', 'd'], ['bad'], ['d']]);
    expect(Object.keys(server.rows('notes'))).toEqual(['a', 'b', 'c', 'd']);
    expect(await phone.conflicts()).toMatchObject([{ kind: 'refused', pk: 'bad', mine: { n: 1 }, error: { code, message: 'too many ops in one push' } }]);
    await phone.pull();
    expect(await phone.outbox()).toEqual([]);
    expect(Object.keys(await phone.rows('notes'))).toEqual(['a', 'b', 'c', 'd']);
  });

  test('tells_the_detail_of_the_error_with_a_single_op', async () => {
    await phone.write('notes', 'a', { n: 1 });
    server.next('push', () => {
      throw new SyncError('22P05', 'untranslatable character', { status: 400, detail: '\\u0000 cannot be converted' });
    });
    await phone.push();
    expect((await phone.conflicts())[0]!.error).toEqual({ code: '22P05', message: 'untranslatable character: \\u0000 cannot be converted' });
    expect(phone.events('pushed')[0]!.results).toMatchObject([{ success: false, errorCode: '22P05' }]);
  });

  test.each([['22023', 400], ['42501', 403], ['08006', 503], ['40001', 503], ['SX004', 503], ['NETWORK', 0], ['28000', 401]])('is_not_halved_with_%s_and_nothing_is_lost', async (code, status) => {
    await phone.writeAll([['notes', 'a', { n: 1 }], ['notes', 'b', { n: 1 }]]);
    server.next('push', refuse(code, status));
    expect((await failure(phone.push())).code).toBe(code);
    expect(pushed()).toEqual([['a', 'b']]);
    expect(await phone.outbox()).toHaveLength(2);
    expect(await phone.conflicts()).toEqual([]);
  });

  test('keeps_what_a_half_has_stored_when_the_other_one_fails', async () => {
    await phone.writeAll([['notes', 'a', { n: 1 }], ['notes', 'b', { n: 1 }]]);
    server.next('push', refuse('54000', 413));
    server.next('push', (answer) => answer());
    server.next('push', refuse('08006', 503));
    await failure(phone.push());
    expect(Object.keys(server.rows('notes'))).toEqual(['a']);
    expect((await phone.known('notes', 'a')).entries[0]!.answered).toBe(1);
    expect((await phone.known('notes', 'b')).entries[0]).not.toHaveProperty('answered');
  });
});

describe('what the user is told', () => {
  test('that_an_edit_was_refused_and_the_record_is_again_what_the_server_has', async () => {
    await phone.write('notes', 'a', { n: 1, m: 1 });
    await phone.sync();
    server.refuse = () => ({ errorCode: 'VALIDATION_ERROR', error: 'n is too large' });
    await phone.write('notes', 'a', { n: 99, m: 1 });
    expect(await phone.rows('notes')).toEqual({ a: { n: 99, m: 1 } });
    await phone.sync();
    expect(await phone.rows('notes')).toEqual({ a: { n: 1, m: 1 } });
    expect(await phone.conflicts()).toEqual(phone.events('conflict'));
    expect(await phone.conflicts()).toMatchObject([{
      kind: 'refused', tableName: 'notes', pk: 'a', mine: { n: 99, m: 1 }, error: { code: 'VALIDATION_ERROR', message: 'n is too large' },
    }]);
  });

  test('that_it_lost_what_it_wrote_to_an_edit_it_had_not_seen', async () => {
    const laptop = await TestDevice.open(server, undefined, { rulesOf: () => ({ patches: false, conflicts: 'merge' }) });
    await laptop.write('notes', 'a', { n: 'laptop' });
    await laptop.write('notes', 'b', { n: 'laptop' });
    await laptop.push();
    await laptop.write('notes', 'a', { n: 'laptop again' });
    await laptop.push();
    await phone.write('notes', 'a', { n: 'phone' });
    await phone.sync();
    expect(await phone.rows('notes')).toEqual({ a: { n: 'laptop again' }, b: { n: 'laptop' } });
    expect(await phone.conflicts()).toMatchObject([{ kind: 'lost', pk: 'a', mine: { n: 'phone' }, theirs: { n: 'laptop again' } }]);
  });

  test('what_others_made_of_it_also_where_the_reply_says_so_with_an_earlier_op', async () => {
    const whole = { rulesOf: () => ({ patches: false }) };
    const laptop = await TestDevice.open(server, undefined, whole);
    for (const n of [1, 2, 3]) {
      await laptop.write('notes', 'a', { n: `laptop ${n}` });
      await laptop.push();
    }
    phone = await TestDevice.open(server, undefined, whole);
    await phone.write('notes', 'a', { n: 'phone 1' });
    server.next('push', refuse('08006', 503));
    await failure(phone.push());
    await phone.write('notes', 'a', { n: 'phone 2' });
    await phone.sync();
    expect(pushed().at(-1)).toEqual(['a', 'a']);
    expect(await phone.conflicts()).toMatchObject([{ kind: 'lost', mine: { n: 'phone 2' }, theirs: { n: 'laptop 3' } }]);
  });

  test('that_an_edit_on_condition_met_another_one_with_all_edits_that_build_on_it', async () => {
    phone = await TestDevice.open(server, undefined, { rulesOf: () => ({ patches: true, conflicts: 'ask' }) });
    const laptop = await TestDevice.open(server);
    await laptop.write('notes', 'a', { n: 1, m: 1, k: 1 });
    await laptop.sync();
    await phone.sync();
    await laptop.write('notes', 'a', { n: 2, m: 1, k: 1 });
    await laptop.sync();
    await phone.write('notes', 'a', { n: 3, m: 1, k: 1 });
    await phone.write('notes', 'a', { n: 4, m: 1, k: 1 });
    await phone.write('notes', 'a', { n: 4, m: 4, k: 1 });
    await phone.sync();
    expect(await phone.conflicts()).toMatchObject([{ kind: 'changed', mine: { n: 4, m: 4, k: 1 }, theirs: { n: 2, m: 4, k: 1 } }]);
    // What nobody else had edited was stored.
    expect(server.rows('notes').a).toEqual({ n: 2, m: 4, k: 1 });
    await phone.sync();
    expect(await phone.rows('notes')).toEqual({ a: { n: 2, m: 4, k: 1 } });
  });

  test('why_a_new_record_was_refused_with_all_that_was_written_of_it', async () => {
    await phone.write('notes', 'a', { n: 99, m: 1 });
    server.next('push', () => {
      throw new SyncError('NETWORK', 'no answer');
    });
    await failure(phone.push());
    await phone.write('notes', 'a', { n: 99, m: 2 });
    server.refuse = ({ operation }) => (operation === 'put' ? { errorCode: 'VALIDATION_ERROR', error: 'n is too large' } : undefined);
    await phone.settle();
    expect(await phone.outbox()).toEqual([]);
    expect(await phone.rows('notes')).toEqual({});
    expect(await phone.conflicts()).toMatchObject([{
      kind: 'refused', mine: { n: 99, m: 2 }, error: { code: 'VALIDATION_ERROR', message: 'n is too large' },
    }]);
  });
});

describe('a put that lost to a delete which its author did not know', () => {
  beforeEach(async () => {
    const laptop = await TestDevice.open(server);
    await laptop.write('notes', 'day', { text: 'laptop' });
    await laptop.push();
    await laptop.write('notes', 'day', null);
    await laptop.push();
  });

  test('is_made_again_and_nobody_is_told', async () => {
    await phone.write('notes', 'day', { text: 'phone' });
    await phone.sync();
    expect(server.rows('notes')).toEqual({ day: { text: 'phone' } });
    expect(await phone.rows('notes')).toEqual({ day: { text: 'phone' } });
    expect(await phone.outbox()).toEqual([]);
    expect(await phone.conflicts()).toEqual([]);
    expect(server.head).toBe(4);
  });

  test('is_made_again_once_with_all_that_was_written_though_the_reply_was_lost', async () => {
    await phone.write('notes', 'day', { text: 'phone', n: 1 });
    server.loseReply('push');
    await failure(phone.push());
    await phone.write('notes', 'day', { text: 'phone', n: 2 });
    await phone.settle();
    expect(server.rows('notes')).toEqual({ day: { text: 'phone', n: 2 } });
    expect(server.log.filter(({ op }) => op.operation === 'put' && op.stamp.clock > 2)).toHaveLength(1);
  });
});

describe('the row that an own table made of an op', () => {
  test('is_shown_until_a_pull_brings_it_and_later_edits_build_on_it', async () => {
    server.rowOf = (payload) => ({ ...payload, total: 7 });
    await phone.write('notes', 'a', { n: 1 });
    await phone.push();
    expect(await phone.rows('notes')).toEqual({ a: { n: 1, total: 7 } });
    await phone.write('notes', 'a', { n: 2, total: 7 });
    expect((await phone.outbox())[1]).toMatchObject({ operation: 'patch', payload: { n: 2 } });
    await phone.settle();
    expect(await phone.rows('notes')).toEqual({ a: { n: 2, total: 7 } });
    expect(await phone.outbox()).toEqual([]);
  });
});
