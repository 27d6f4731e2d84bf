import { beforeEach, describe, expect, test } from 'vitest';
import { SyncError } from '../../src/error.ts';
import type { PullReply } from '../../src/wire.ts';
import { TestDevice, failure } from '../support/device.ts';
import { FakeServer, changeOf } from '../support/server.ts';

let server: FakeServer;
let phone: TestDevice;
let laptop: TestDevice;
beforeEach(async () => {
  server = new FakeServer();
  phone = await TestDevice.open(server);
  laptop = await TestDevice.open(server);
});

describe('a pull', () => {
  test('brings_what_others_wrote_and_deleted', async () => {
    await laptop.writeAll([['notes', 'a', { n: 1 }], ['notes', 'b', { n: 1 }], ['files', 'c', { n: 1 }]]);
    await laptop.sync();
    await phone.pull();
    await laptop.write('notes', 'a', null);
    await laptop.write('notes', 'b', { n: 2 });
    await laptop.sync();
    await phone.pull();
    expect(await phone.rows('notes')).toEqual({ b: { n: 2 } });
    expect(await phone.rows('files')).toEqual({ c: { n: 1 } });
    expect((await phone.known('notes', 'a')).synced).toMatchObject({ payload: null, register: { clock: 2 } });
  });

  test('stores_cursor_and_proof_with_each_page_and_asks_for_the_next_from_there', async () => {
    phone = await TestDevice.open(server, undefined, { pageLimit: 2 });
    await laptop.writeAll(['a', 'b', 'c'].map((pk) => ['notes', pk, { n: 1 }]));
    await laptop.push();
    server.calls.length = 0;
    await phone.pull();
    expect(server.calls.map(({ body }) => body)).toEqual([
      { cursor: 0, proof: null, tables: null, scopes: null, latest: true, pageLimit: 2 },
      { cursor: 2, proof: '3:3', tables: null, scopes: null, latest: true, pageLimit: 2 },
    ]);
    expect(await phone.state()).toMatchObject({ cursor: 3, proof: '3:3', isComplete: true, snapshot: null });
    expect(phone.events('pulled')).toEqual([{ changes: 2, cursor: 2, head: 3 }, { changes: 1, cursor: 3, head: 3 }]);
  });

  test('that_fails_after_a_page_goes_on_behind_it', async () => {
    phone = await TestDevice.open(server, undefined, { pageLimit: 1 });
    await laptop.writeAll(['a', 'b'].map((pk) => ['notes', pk, { n: 1 }]));
    await laptop.push();
    server.next('pull', (answer) => answer());
    server.loseReply('pull');
    await failure(phone.pull());
    expect(await phone.state()).toMatchObject({ cursor: 1, isComplete: false });
    expect(await phone.rows('notes')).toEqual({ a: { n: 1 } });
    await phone.pull();
    expect(await phone.rows('notes')).toEqual({ a: { n: 1 }, b: { n: 1 } });
    expect((await phone.state()).isComplete).toBe(true);
  });

  test('without_changes_tells_nothing', async () => {
    await phone.pull();
    expect(phone.told).toEqual([]);
    expect(await phone.state()).toMatchObject({ cursor: 0, proof: null, isComplete: true });
  });

  test('asks_for_smaller_pages_where_one_is_too_large_also_of_a_snapshot', async () => {
    phone = await TestDevice.open(server, undefined, { pageLimit: 8 });
    await laptop.writeAll(['a', 'b', 'c', 'd', 'e'].map((pk) => ['notes', pk, { n: 1 }]));
    await laptop.push();
    server.check = ({ name, body }) => {
      if (name !== 'push' && body.pageLimit > 3) throw new SyncError('54000', 'reply is too large', { status: 400 });
    };
    server.calls.length = 0;
    await phone.pull();
    expect(server.calls.map(({ body }) => body.pageLimit)).toEqual([8, 4, 2, 2, 2]);
    expect(Object.keys(await phone.rows('notes'))).toHaveLength(5);
    server.check = ({ name }) => {
      if (name === 'pull') throw new SyncError('54000', 'reply is too large', { status: 400 });
    };
    expect((await failure(phone.pull())).code).toBe('54000');
  });

  test('shows_the_outbox_over_what_it_brings', async () => {
    await laptop.write('notes', 'a', { n: 1, m: 1 });
    await laptop.sync();
    await phone.pull();
    await phone.write('notes', 'a', { n: 1, m: 2 });
    await laptop.write('notes', 'a', { n: 2, m: 1 });
    await laptop.sync();
    await phone.pull();
    expect(await phone.rows('notes')).toEqual({ a: { n: 2, m: 2 } });
    expect((await phone.known('notes', 'a')).synced!.payload).toEqual({ n: 2, m: 1 });
  });

  test('of_a_filter_asks_for_its_tables', async () => {
    phone = await TestDevice.open(server, undefined, { filter: ['notes'] });
    await laptop.writeAll([['notes', 'a', { n: 1 }], ['files', 'b', { n: 1 }]]);
    await laptop.push();
    await phone.pull();
    expect(server.calls.at(-1)!.body.tables).toEqual(['notes']);
    expect(await phone.rows('files')).toEqual({});
    expect((await phone.state()).cursor).toBe(2);
  });

  test('settles_only_with_its_last_page', async () => {
    phone = await TestDevice.open(server, undefined, { pageLimit: 1 });
    await phone.writeAll(['a', 'b'].map((pk) => ['notes', pk, { n: 1 }]));
    await phone.push();
    server.next('pull', (answer) => answer());
    server.loseReply('pull');
    await failure(phone.pull());
    expect(await phone.outbox()).toHaveLength(2);
    await phone.pull();
    expect(await phone.outbox()).toEqual([]);
  });

  test('keeps_an_op_that_was_answered_above_what_a_lagging_standby_has', async () => {
    await phone.write('notes', 'a', { n: 1 });
    await phone.sync();
    server.standby = server.at(1);
    await phone.write('notes', 'a', { n: 2 });
    await phone.push();
    await phone.pull();
    expect(await phone.rows('notes')).toEqual({ a: { n: 2 } });
    server.standby = undefined;
    await phone.settle();
    expect(await phone.outbox()).toEqual([]);
    expect(server.head).toBe(2);
  });
});

describe('an edit that was overwritten by somebody who had not seen it', () => {
  const whole = { rulesOf: () => ({ patches: false }) };

  beforeEach(async () => {
    phone = await TestDevice.open(server, undefined, whole);
    laptop = await TestDevice.open(server, undefined, whole);
    await laptop.write('notes', 'a', { n: 0 });
    await laptop.sync();
    await phone.sync();
    await phone.write('notes', 'a', { n: 'phone' });
    await phone.sync();
  });

  test('is_told_with_both', async () => {
    await laptop.write('notes', 'a', { n: 'laptop' });
    await laptop.write('notes', 'a', { n: 'laptop!' });
    await laptop.push();
    await phone.pull();
    expect(await phone.conflicts()).toMatchObject([{ kind: 'overwritten', mine: { n: 'phone' }, theirs: { n: 'laptop!' } }]);
    await laptop.pull();
    expect(await laptop.conflicts()).toEqual([]);
  });

  test('is_told_as_deleted', async () => {
    await laptop.write('notes', 'a', null);
    await laptop.push();
    await phone.pull();
    expect(await phone.conflicts()).toMatchObject([{ kind: 'overwritten', mine: { n: 'phone' }, theirs: null }]);
  });

  test('is_not_told_when_both_wrote_the_same', async () => {
    await laptop.write('notes', 'a', { n: 'phone' });
    await laptop.push();
    await phone.pull();
    expect(await phone.conflicts()).toEqual([]);
  });

  test('is_not_told_when_this_user_has_edited_the_record_again', async () => {
    await laptop.write('notes', 'a', { n: 'laptop' });
    await laptop.push();
    await phone.write('notes', 'a', { n: 'phone again' });
    await phone.pull();
    expect(await phone.conflicts()).toEqual([]);
    await phone.settle();
    expect(server.rows('notes')).toEqual({ a: { n: 'phone again' } });
  });

  test('is_not_told_to_those_whose_edit_it_was_not', async () => {
    const third = await TestDevice.open(server, undefined, whole);
    await third.pull();
    await laptop.write('notes', 'a', { n: 'laptop' });
    await laptop.push();
    await third.pull();
    expect(await third.conflicts()).toEqual([]);
  });

  test('is_not_told_when_the_other_one_had_seen_it', async () => {
    await laptop.sync();
    await laptop.write('notes', 'a', { n: 'laptop' });
    await laptop.push();
    await phone.pull();
    expect(await phone.conflicts()).toEqual([]);
  });
});

describe('an event of a stream', () => {
  const event = (cursor: number, from: number): PullReply => ({
    changes: server.log.slice(from, cursor).map((entry, i) => changeOf(entry, from + i + 1)),
    nextCursor: cursor, hasMore: false, serverVersion: cursor, requiresSnapshot: false, proof: `${cursor}:${cursor}`,
  });

  beforeEach(async () => {
    await laptop.write('notes', 'a', { n: 1 });
    await laptop.write('notes', 'b', { n: 1 });
    await laptop.push();
  });

  test('is_stored_like_a_page', async () => {
    const opened = await phone.state();
    expect(await phone.device.receive(event(2, 0), opened)).toBe(true);
    expect(await phone.rows('notes')).toEqual({ a: { n: 1 }, b: { n: 1 } });
    expect(await phone.state()).toMatchObject({ cursor: 2, proof: '2:2', isComplete: true });
    expect(phone.events('pulled')).toEqual([{ changes: 2, cursor: 2, head: 2 }]);
  });

  test('settles_the_outbox', async () => {
    const opened = await phone.state();
    await phone.write('notes', 'c', { n: 1 });
    await phone.push();
    await phone.device.receive(event(3, 0), opened);
    expect(await phone.outbox()).toEqual([]);
  });

  test('that_is_not_above_the_cursor_is_ignored', async () => {
    const opened = await phone.state();
    await phone.pull();
    phone.told.length = 0;
    const before = await phone.state();
    expect(await phone.device.receive(event(1, 0), opened)).toBe(true);
    expect(await phone.device.receive(event(2, 0), opened)).toBe(true);
    expect(await phone.state()).toEqual(before);
    expect(phone.told).toEqual([]);
  });

  test('that_requires_a_snapshot_ends_the_stream_and_the_next_pull_takes_it', async () => {
    const opened = await phone.state();
    const reply: PullReply = { ...event(0, 0), requiresSnapshot: true, reason: 'history_diverged' };
    expect(await phone.device.receive(reply, opened)).toBe(false);
    expect(await phone.state()).toMatchObject({ cursor: 0, historyLost: true, snapshot: { pages: 0 } });
    expect(await phone.device.receive(event(2, 0), opened)).toBe(false);
    expect(await phone.rows('notes')).toEqual({});
    await phone.pull();
    expect(await phone.rows('notes')).toEqual({ a: { n: 1 }, b: { n: 1 } });
  });

  test('of_a_stream_from_before_a_snapshot_is_refused', async () => {
    await phone.pull();
    const opened = await phone.state();
    server.gc();
    await phone.device.receive({ ...event(0, 0), requiresSnapshot: true, reason: 'cursor_expired' }, opened);
    await phone.pull();
    expect((await phone.state()).generation).toBe(opened.generation + 1);
    expect(await phone.device.receive({ ...event(2, 0), nextCursor: 9 }, opened)).toBe(false);
    expect((await phone.state()).cursor).toBe(2);
  });

  test('of_a_stream_that_another_device_has_opened_is_refused', async () => {
    expect(await phone.device.receive(event(2, 0), { ...await phone.state(), deviceId: 'other' })).toBe(false);
    expect(await phone.rows('notes')).toEqual({});
  });

  test('makes_the_reply_of_a_call_that_began_before_it_a_late_one', async () => {
    const opened = await phone.state();
    await phone.write('notes', 'c', { n: 1 });
    const { arrived, release } = server.hold('push');
    const push = phone.push();
    await arrived;
    await phone.device.receive(event(2, 0), opened);
    release();
    expect((await failure(push)).code).toBe('LATE');
    await phone.settle();
    expect(await phone.outbox()).toEqual([]);
    expect(server.head).toBe(3);
  });
});

describe('acknowledging', () => {
  const acknowledged = () => server.named('cursor').map(({ body }) => body.version);

  test('follows_the_first_complete_pull', async () => {
    phone = await TestDevice.open(server, undefined, { pageLimit: 1 });
    await laptop.writeAll(['a', 'b'].map((pk) => ['notes', pk, { n: 1 }]));
    await laptop.push();
    server.next('pull', (answer) => answer());
    server.loseReply('pull');
    await failure(phone.sync());
    await phone.device.acknowledge(new AbortController().signal);
    expect(acknowledged()).toEqual([]);
    await phone.sync();
    expect(acknowledged()).toEqual([2]);
    expect(server.cursors.get((await phone.state()).deviceId)).toBe(2);
  });

  test('is_not_repeated_without_changes_but_for_the_heartbeat', async () => {
    let now = 1_700_000_000_000;
    phone = await TestDevice.open(server, undefined, { now: () => now });
    await laptop.write('notes', 'a', { n: 1 });
    await laptop.push();
    await phone.sync();
    await phone.sync();
    now += 12 * 3600 * 1000;
    await phone.sync();
    expect(acknowledged()).toEqual([1]);
    now += 1;
    await phone.sync();
    await phone.sync();
    expect(acknowledged()).toEqual([1, 1]);
  });

  test('of_an_empty_workspace_does_not_happen', async () => {
    await phone.sync();
    expect(acknowledged()).toEqual([]);
  });

  test('waits_for_the_end_of_a_snapshot', async () => {
    await laptop.write('notes', 'a', { n: 1 });
    await laptop.push();
    await phone.pull();
    await phone.store.transaction(async (tx) => {
      const state = (await tx.state())!;
      const snapshot = { pages: 0, records: 0, nextPageToken: null, isWhole: false, highWatermark: 0, proof: null };
      await tx.setState({ ...state, snapshot });
    });
    await phone.device.acknowledge(new AbortController().signal);
    expect(acknowledged()).toEqual([]);
  });

  test('that_is_refused_as_above_the_head_wants_a_pull_first', async () => {
    await laptop.writeAll([['notes', 'a', { n: 1 }], ['notes', 'b', { n: 1 }]]);
    await laptop.push();
    await phone.pull();
    server.restore(1);
    const error = await failure(phone.device.acknowledge(new AbortController().signal));
    expect(error).toMatchObject({ code: 'SX003', remedy: 'pull' });
    await phone.sync();
    expect(acknowledged().at(-1)).toBe(1);
    expect(await phone.rows('notes')).toEqual({ a: { n: 1 } });
  });

  test('that_fails_is_repeated', async () => {
    await laptop.write('notes', 'a', { n: 1 });
    await laptop.push();
    server.next('cursor', () => {
      throw new SyncError('08006', 'no connection', { status: 503 });
    });
    await failure(phone.sync());
    await phone.sync();
    expect(acknowledged()).toEqual([1, 1]);
  });
});

describe('late replies, of two devices on one store', () => {
  let tab: TestDevice;
  beforeEach(async () => {
    tab = await TestDevice.open(server, phone.store);
  });

  test('are_the_same_device', async () => {
    expect((await tab.state()).deviceId).toBe((await phone.state()).deviceId);
  });

  test('a_pull_that_is_answered_after_a_later_one_does_not_set_the_cursor_back', async () => {
    await laptop.write('notes', 'a', { n: 1 });
    await laptop.push();
    const { arrived, release } = server.hold('pull');
    const late = phone.pull();
    await arrived;
    await laptop.write('notes', 'a', { n: 2 });
    await laptop.push();
    await tab.pull();
    const before = await tab.state();
    release();
    expect(await failure(late)).toMatchObject({ code: 'LATE', remedy: 'later' });
    expect(await tab.state()).toEqual(before);
    expect(await phone.rows('notes')).toEqual({ a: { n: 2 } });
  });

  test('a_push_that_is_answered_after_a_later_call_is_sent_again_as_the_same_ops', async () => {
    await phone.write('notes', 'a', { n: 1 });
    const { arrived, release } = server.hold('push');
    const late = phone.push();
    await arrived;
    await tab.pull();
    release();
    expect((await failure(late)).code).toBe('LATE');
    expect((await phone.known('notes', 'a')).entries[0]).not.toHaveProperty('answered');
    await phone.settle();
    const [first, second] = server.named('push');
    expect(second!.body).toEqual(first!.body);
    expect(server.head).toBe(1);
  });

  test('a_page_of_a_snapshot_that_is_answered_after_a_later_call_is_ignored', async () => {
    phone = await TestDevice.open(server, phone.store, { pageLimit: 1 });
    await laptop.writeAll(['a', 'b'].map((pk) => ['notes', pk, { n: 1 }]));
    await laptop.push();
    await phone.pull();
    await laptop.write('notes', 'a', null);
    await laptop.push();
    await laptop.write('notes', 'c', { n: 1 });
    await laptop.push();
    server.gc();
    const { arrived, release } = server.hold('snapshot');
    const late = phone.pull();
    await arrived;
    await tab.pull();
    release();
    expect((await failure(late)).code).toBe('LATE');
    expect(await tab.state()).toMatchObject({ snapshot: null, cursor: 4 });
    expect(await phone.rows('notes')).toEqual({ b: { n: 1 }, c: { n: 1 } });
  });

  test('a_call_that_began_earlier_and_is_answered_first_counts', async () => {
    await phone.write('notes', 'a', { n: 1 });
    const push = server.hold('push');
    const pull = server.hold('pull');
    const first = phone.push();
    await push.arrived;
    const second = tab.pull();
    await pull.arrived;
    push.release();
    await first;
    pull.release();
    await second;
    expect(await tab.state()).toMatchObject({ cursor: 1 });
    expect(await phone.outbox()).toEqual([]);
  });

  test('what_one_writes_the_other_pushes', async () => {
    await phone.write('notes', 'a', { n: 1 });
    await tab.write('notes', 'a', { n: 2 });
    await tab.sync();
    expect(server.rows('notes')).toEqual({ a: { n: 2 } });
    expect(await phone.outbox()).toEqual([]);
  });
});

describe('a patch whose base the server does not have', () => {
  test('is_pushed_again_after_its_base_was', async () => {
    await phone.write('notes', 'a', { n: 1, m: 1 });
    await phone.sync();
    await phone.write('notes', 'a', { n: 2, m: 1 });
    await phone.write('files', 'b', { n: 1 });
    await phone.push();
    server.restore(0);
    await phone.settle();
    // Its put was synced, and is lost with the server's history: the user is offered it.
    expect(await phone.outbox()).toEqual([]);
    expect(server.rows('files')).toEqual({ b: { n: 1 } });
    expect(await phone.rows('notes')).toEqual({});
    expect(await phone.conflicts()).toMatchObject([{ kind: 'restored', pk: 'a', mine: { n: 2, m: 1 } }]);
  });

  test('and_never_will_leaves_with_all_that_it_wrote', async () => {
    await laptop.write('notes', 'a', { n: 1, m: 1, k: 1 });
    await laptop.sync();
    await phone.sync();
    await phone.write('notes', 'a', { n: 2, m: 1, k: 1 });
    server.loseReply('push');
    await failure(phone.push());
    await phone.write('notes', 'a', { n: 2, m: 2, k: 1 });
    server.restore(0);
    await phone.settle();
    expect(await phone.outbox()).toEqual([]);
    expect(await phone.conflicts()).toMatchObject([{
      kind: 'refused', mine: { n: 2, m: 2 }, error: { code: 'BASE_MISSING' },
    }]);
  });

  test('waits_until_a_complete_pull', async () => {
    await phone.write('notes', 'a', { n: 1 });
    server.loseReply('push');
    await failure(phone.push());
    await phone.write('notes', 'a', { n: 2 });
    server.refuse = ({ operation }) => (operation === 'put' ? { errorCode: 'CONSTRAINT', retry: true, error: 'no parent' } : undefined);
    server.restore(0);
    await phone.push();
    server.calls.length = 0;
    await phone.push();
    expect(server.named('push').map(({ body }) => body.map(({ operation }: { operation: string }) => operation))).toEqual([['put']]);
    await phone.pull();
    server.refuse = () => undefined;
    await phone.settle();
    expect(server.rows('notes')).toEqual({ a: { n: 2 } });
    expect(await phone.outbox()).toEqual([]);
    expect(await phone.conflicts()).toEqual([]);
  });
});
