import { beforeEach, describe, expect, test } from 'vitest';
import { SyncError } from '../../src/error.ts';
import { MemoryStore } from '../../src/store/memory.ts';
import type { Store } from '../../src/store/store.ts';
import type { Op, Payload } from '../../src/wire.ts';
import { TestDevice, type TestOptions, failure } from '../support/device.ts';
import { type Death, KillableStore } from '../support/killable.ts';
import { FakeServer } from '../support/server.ts';

let server: FakeServer;
let laptop: TestDevice;

beforeEach(async () => {
  server = new FakeServer();
  server.scopeFields = { notes: 'in' };
  // It follows all, and edits by puts.
  laptop = await TestDevice.open(server, undefined, { rulesOf: () => ({}) });
});

const open = (scopes: string[] | null, store?: Store, options: TestOptions = {}) => TestDevice.open(server, store, { scopes, pageLimit: 2, ...options });

/** Records of the table notes, by pk: where they are, null for nowhere. */
async function write(notes: { [pk: string]: string | null }): Promise<void> {
  const values = Object.entries(notes).map(([pk, at]): [string, string, Payload | null] => ['notes', pk, at === null ? null : { in: at }]);
  for (const value of values) await laptop.writeAll([value]);
  await laptop.sync();
}

/** Where its user sees the records. */
async function seen(device: TestDevice): Promise<{ [pk: string]: unknown }> {
  return Object.fromEntries(Object.entries(await device.rows('notes')).map(([pk, row]) => [pk, (row as Payload).in]));
}

const calls = () => server.calls.map(({ name, body: { scopes, have } }) => [name, scopes, ...(have ? [have] : [])]);
const lists = async (device: TestDevice) => {
  const { scopes, wished } = await device.state();
  return [scopes, wished];
};

describe('a list of scopes', () => {
  test('has_the_records_inside_it_and_those_of_tables_without_scopes', async () => {
    await write({ x: 'a', y: 'b', z: 'c' });
    await laptop.write('files', 'f', { n: 1 });
    await laptop.sync();
    const phone = await open(['a', 'c']);
    await phone.sync();
    expect(await seen(phone)).toEqual({ x: 'a', z: 'c' });
    expect(await phone.rows('files')).toEqual({ f: { n: 1 } });
    expect((await phone.known('notes', 'x')).synced).toMatchObject({ scope: 'a' });
  });

  test('and_a_filter_of_tables_hold_together', async () => {
    await write({ x: 'a', y: 'b' });
    await laptop.write('files', 'f', { n: 1 });
    await laptop.sync();
    const phone = await open(['a'], undefined, { filter: ['notes'] });
    await phone.sync();
    await phone.device.wish(['b']);
    await phone.sync();
    expect(await seen(phone)).toEqual({ y: 'b' });
    expect(await phone.rows('files')).toEqual({});
  });

  test('may_be_empty', async () => {
    await write({ x: 'a', y: '' });
    const phone = await open([]);
    await phone.sync();
    expect(await seen(phone)).toEqual({});
  });

  test('of_a_later_start_is_the_stored_one', async () => {
    const store = new MemoryStore();
    await (await open(['a'], store)).sync();
    expect(await lists(await open(['b'], store))).toEqual([['a'], ['a']]);
  });
});

describe('a record that leaves', () => {
  let phone: TestDevice;
  beforeEach(async () => {
    await write({ x: 'a', y: 'a' });
    phone = await open(['a']);
    await phone.sync();
  });

  test('goes_and_nothing_of_it_stays', async () => {
    await write({ x: 'b' });
    await phone.pull();
    expect(await seen(phone)).toEqual({ y: 'a' });
    expect((await phone.known('notes', 'x')).synced).toBeUndefined();
  });

  test('by_a_patch_that_its_own_call_superseded_goes_too', async () => {
    const { register } = (await laptop.known('notes', 'x')).synced!;
    const patch = (n: number, payload: Payload): Op => ({
      tableName: 'notes', pk: 'x', operation: 'patch', base: register!, payload,
      stamp: { clock: 5 + n, hlc: `h${n}`, opId: `00000000-0000-4000-8000-00000000000${n}`, deviceId: 'd' },
    });
    server.push([patch(1, { in: 'b' }), patch(2, { n: 2 })]);
    await phone.write('notes', 'x', { in: 'a', mine: true });
    await phone.pull();
    expect(await seen(phone)).toEqual({ y: 'a' });
    expect((await phone.known('notes', 'x')).synced).toMatchObject({ version: 3, register, newest: null });
  });

  test('keeps_its_pending_patch_which_changes_it_where_it_is', async () => {
    await phone.write('notes', 'x', { in: 'a', mine: true });
    await laptop.pull();
    const patcher = await TestDevice.open(server);
    await patcher.pull();
    await patcher.write('notes', 'x', { in: 'b' });
    await patcher.push();
    await phone.pull();
    expect(await seen(phone)).toEqual({ y: 'a' });
    expect(await phone.outbox()).toHaveLength(1);
    await phone.settle();
    expect(server.rows('notes').x).toEqual({ in: 'b', mine: true });
    expect(await phone.outbox()).toEqual([]);
    expect((await phone.known('notes', 'x')).synced).toBeUndefined();
  });

  test('is_taken_by_a_pending_put_to_the_scope_that_it_names', async () => {
    phone = await open(['a'], undefined, { rulesOf: () => ({}) });
    await phone.sync();
    await write({ x: 'b' });
    await phone.write('notes', 'x', { in: 'a', n: 1 });
    await phone.write('notes', 'x', { in: 'c', n: 2 });
    await write({ x: 'd' });
    await phone.settle();
    await phone.settle();
    expect(server.rows('notes').x).toEqual({ in: 'd' });
    expect((await phone.conflicts()).map(({ kind }) => kind)).toEqual(['lost']);
    expect(await phone.outbox()).toEqual([]);
  });

  test('hides_a_pending_put_that_is_older', async () => {
    phone = await open(['a'], undefined, { rulesOf: () => ({}) });
    await phone.sync();
    await phone.write('notes', 'x', { in: 'a', mine: true });
    await write({ x: 'a' });
    await laptop.write('notes', 'x', { in: 'a', again: true });
    await laptop.sync();
    await write({ x: 'b' });
    await phone.pull();
    expect(await seen(phone)).toEqual({ y: 'a' });
    expect(await phone.outbox()).toHaveLength(1);
  });

  test('counts_as_unknown_to_who_makes_it_anew', async () => {
    await phone.write('notes', 'x', { in: 'a', mine: true });
    await write({ x: 'b' });
    await phone.pull();
    expect((await phone.known('notes', 'x')).synced).toMatchObject({ newest: null });
    await phone.write('notes', 'x', { in: 'a', anew: true });
    const { entries } = await phone.known('notes', 'x');
    expect(entries.at(-1)).toMatchObject({ op: { operation: 'put', parent: 'none' }, unknowing: true });
  });

  test('settles_an_own_op_that_took_it_out', async () => {
    await phone.write('notes', 'x', { in: 'b' });
    await phone.push();
    await phone.pull();
    expect(await phone.outbox()).toEqual([]);
    expect(server.named('push')).toHaveLength(2);
  });

  test('an_answered_op_on_it_leaves_by_a_replay', async () => {
    await phone.write('notes', 'x', { in: 'a', mine: true });
    await phone.push();
    const patcher = await TestDevice.open(server);
    await patcher.pull();
    await patcher.write('notes', 'x', { in: 'b', mine: true });
    await patcher.push();
    server.calls.length = 0;
    await phone.pull();
    expect(calls().map(([name]) => name)).toEqual(['pull', 'push']);
    expect(await phone.outbox()).toEqual([]);
    expect((await phone.known('notes', 'x')).synced).toBeUndefined();
  });

  test('comes_back_at_the_version_of_its_mark', async () => {
    await phone.write('notes', 'x', { in: 'a', mine: true });
    const patcher = await TestDevice.open(server);
    await patcher.pull();
    await patcher.write('notes', 'x', { in: 'b' });
    await patcher.push();
    server.next('push', () => {
      throw new SyncError('NETWORK', 'no answer');
    });
    await phone.pull();
    const { version } = (await phone.known('notes', 'x')).synced!;
    await phone.device.wish(['a', 'b']);
    await phone.pull();
    expect((await phone.known('notes', 'x')).synced).toMatchObject({ version, scope: 'b', payload: { in: 'b' } });
    expect(await phone.rows('notes')).toMatchObject({ x: { in: 'b', mine: true } });
  });
});

describe('another list', () => {
  let phone: TestDevice;
  beforeEach(async () => {
    await write({ x: 'a', y: 'b', z: 'c', v: 'b', w: 'b' });
    phone = await open(['a']);
    await phone.sync();
    server.calls.length = 0;
  });

  test('is_not_simply_pulled_with', async () => {
    await phone.device.wish(['b', 'c']);
    await phone.pull();
    expect(calls()).toEqual([
      ['pull', ['a']], ['snapshot', ['b', 'c'], ['a']], ['snapshot', ['b', 'c'], ['a']], ['pull', ['b', 'c']],
    ]);
    expect(await seen(phone)).toEqual({ y: 'b', z: 'c', v: 'b', w: 'b' });
    expect(await lists(phone)).toEqual([['b', 'c'], ['b', 'c']]);
    expect(phone.events('scopes')).toEqual([{ followed: ['b', 'c'], wished: ['b', 'c'] }]);
    expect(phone.events('progress').at(-1)).toEqual({ received: 4, stored: 4, isOver: true });
    expect((await phone.state()).generation).toBe(1);
  });

  test('is_a_wish_as_long_as_the_server_cannot_be_reached', async () => {
    server.check = () => {
      throw new SyncError('NETWORK', 'no answer');
    };
    await phone.device.wish(['b']);
    await failure(phone.pull());
    expect(await lists(phone)).toEqual([['a'], ['b']]);
    expect(await seen(phone)).toEqual({ x: 'a' });
    server.check = () => {};
    const later = await open(['a'], phone.store);
    await later.sync();
    expect(await seen(later)).toEqual({ y: 'b', v: 'b', w: 'b' });
  });

  test('that_a_tab_wished_for_and_died_is_seen_by_the_next_push', async () => {
    await (await open(null, phone.store)).device.wish(['b']);
    await phone.push();
    expect(phone.device.hasMore).toBe(true);
    await phone.pull();
    await phone.push();
    expect(phone.device.hasMore).toBe(false);
  });

  test('waits_for_the_end_of_the_pages_of_the_old_one', async () => {
    await write({ x: 'a', x1: 'a', x2: 'a', x3: 'a', x4: 'a' });
    server.next('pull', async (answer) => {
      const reply = answer();
      await phone.device.wish(['b']);
      return reply;
    });
    server.calls.length = 0;
    await failure(phone.pull());
    await phone.pull();
    const asked = calls().map(([name, scopes]) => `${name} ${scopes}`);
    expect(asked).toEqual(['pull a', 'pull a', 'pull a', 'snapshot b', 'snapshot b', 'pull b']);
    expect(await seen(phone)).toEqual({ y: 'b', v: 'b', w: 'b' });
  });

  test('without_a_scope_that_a_record_came_back_to_on_a_page_to_come', async () => {
    phone = await open(['b', 'c'], undefined, { pageLimit: 1 });
    await phone.sync();
    // Its leave is not told, since it is inside again.
    for (const notes of [{ y: 'd' }, { b1: 'b' }, { b2: 'b' }, { y: 'c' }]) await write(notes);
    await phone.device.wish(['b']);
    await phone.pull();
    expect(await seen(phone)).toEqual({ v: 'b', w: 'b', b1: 'b', b2: 'b' });
  });

  test('does_not_move_the_cursor', async () => {
    server.next('snapshot', async (answer) => {
      await write({ x: 'd' });
      return answer();
    });
    await phone.device.wish(['a', 'b']);
    await phone.pull();
    expect(await seen(phone)).toEqual({ y: 'b', v: 'b', w: 'b' });
  });

  test('is_read_with_the_proof_of_the_state', async () => {
    const { proof } = await phone.state();
    await phone.device.wish(['b']);
    await phone.pull();
    const proofs = server.named('snapshot').map(({ body }) => body.proof);
    expect(proofs).toEqual([proof, proof]);
    expect((await phone.state()).proof).toBe('5:5|["b"]|0');
  });

  test('takes_the_last_pages_proof', async () => {
    await phone.device.wish(['b']);
    server.next('pull', (answer) => answer());
    server.next('pull', () => {
      throw new SyncError('NETWORK', 'no answer');
    });
    await failure(phone.pull());
    expect(await phone.state()).toMatchObject({ scopes: ['b'], cursor: 5, proof: '5:5|["b"]|0', snapshot: null });
  });

  test('is_tried_again_after_a_pull_when_its_snapshot_has_expired', async () => {
    await phone.device.wish(['b']);
    server.next('snapshot', () => {
      throw new SyncError('SX001', 'snapshot expired', { status: 409 });
    });
    await phone.pull();
    const asked = calls().map(([name, scopes]) => `${name} ${scopes}`);
    expect(asked).toEqual(['pull a', 'snapshot b', 'pull a', 'snapshot b', 'snapshot b', 'pull b']);
    expect(await seen(phone)).toEqual({ y: 'b', v: 'b', w: 'b' });
  });

  test('keeps_what_both_have_without_reading_it_again', async () => {
    await phone.device.wish(['a', 'c']);
    await phone.pull();
    const listed = await Promise.all(server.named('snapshot').map(({ body }) => body.scopes));
    expect(listed).toEqual([['a', 'c']]);
    expect(phone.events('progress').at(-1)).toMatchObject({ received: 1 });
    expect(await seen(phone)).toEqual({ x: 'a', z: 'c' });
  });

  test('that_is_all_or_was_is_a_whole_snapshot', async () => {
    await phone.device.wish(null);
    await phone.pull();
    expect(await seen(phone)).toEqual({ x: 'a', y: 'b', z: 'c', v: 'b', w: 'b' });
    expect(server.named('snapshot').map(({ body }) => body.have)).toEqual([undefined, undefined, undefined]);
    await phone.device.wish(['c']);
    await phone.pull();
    expect(await seen(phone)).toEqual({ z: 'c' });
    expect((await phone.known('notes', 'z')).synced).toMatchObject({ scope: 'c' });
    await phone.device.wish(['b']);
    await phone.pull();
    expect(await seen(phone)).toEqual({ y: 'b', v: 'b', w: 'b' });
  });

  test('that_is_all_is_not_tried_again_and_again_on_a_standby_that_lags', async () => {
    await phone.device.wish(null);
    server.standby = server.at(3);
    server.calls.length = 0;
    expect((await failure(phone.pull())).code).toBe('SX002');
    expect(calls().map(([name]) => name)).toEqual(['pull', 'snapshot', 'snapshot']);
    expect(await lists(phone)).toEqual([['a'], null]);
    server.standby = undefined;
    server.calls.length = 0;
    await phone.pull();
    expect(calls()[0]).toEqual(['pull', ['a']]);
    expect(await seen(phone)).toEqual({ x: 'a', y: 'b', z: 'c', v: 'b', w: 'b' });
  });

  test('comes_with_the_snapshot_that_a_pull_wants', async () => {
    server.setScopeField('notes', 'of');
    await phone.device.wish(['', 'b']);
    server.next('snapshot', () => {
      throw new SyncError('NETWORK', 'no answer');
    });
    await failure(phone.pull());
    // Nothing was lost: a standby that lags is one.
    expect((await phone.state()).historyLost).toBe(false);
    await phone.pull();
    expect(await phone.state()).toMatchObject({ scopes: ['', 'b'], historyLost: false });
    expect(await seen(phone)).toEqual({ x: 'a', y: 'b', z: 'c', v: 'b', w: 'b' });
    expect(server.named('snapshot')[0]!.body.have).toBeUndefined();
  });

  test('keeps_the_pending_ops_of_records_outside', async () => {
    await phone.write('notes', 'x', { in: 'a', mine: true });
    await phone.device.wish(['b']);
    await phone.pull();
    expect(await seen(phone)).toEqual({ y: 'b', v: 'b', w: 'b' });
    expect((await phone.known('notes', 'x')).synced).toMatchObject({ newest: null, payload: null });
    await phone.settle();
    expect(server.rows('notes').x).toEqual({ in: 'a', mine: true });
    expect((await phone.known('notes', 'x')).synced).toBeUndefined();
    expect(await phone.outbox()).toEqual([]);
  });

  test('ends_streams_of_the_old_one', async () => {
    const opened = await phone.state();
    await phone.device.wish(['b']);
    await phone.pull();
    await write({ y2: 'b' });
    const event = await server.call<never>('w', 'pull', { cursor: opened.cursor, proof: opened.proof, scopes: ['a'], tables: null, latest: true, pageLimit: 9 });
    expect(await phone.device.receive(event, opened)).toBe(false);
  });

  test('is_begun_by_an_event_that_ends_a_stream', async () => {
    const opened = await phone.state();
    await write({ x2: 'a' });
    const event = await server.call<never>('w', 'pull', { cursor: opened.cursor, proof: opened.proof, scopes: ['a'], tables: null, latest: true, pageLimit: 9 });
    await phone.device.wish(['b']);
    expect(await phone.device.receive(event, opened)).toBe(false);
    await phone.pull();
    expect(await seen(phone)).toEqual({ y: 'b', v: 'b', w: 'b' });
  });
});

describe('two tabs', () => {
  const twoTabs = async () => {
    await write({ x: 'a', y: 'b', z: 'c', y2: 'b', y3: 'b' });
    const store = new MemoryStore();
    const [one, two] = [await open(['a'], store), await open(['a'], store)];
    await one.sync();
    return [one, two] as const;
  };

  test('the_last_wish_counts', async () => {
    const [one, two] = await twoTabs();
    await Promise.all([one.device.wish(['b']), two.device.wish(['c'])]);
    await one.pull();
    expect(await seen(two)).toEqual({ z: 'c' });
  });

  test('a_wish_ends_the_snapshot_of_the_one_before', async () => {
    const [one, two] = await twoTabs();
    await one.device.wish(['b']);
    const reply = server.hold('snapshot');
    const first = failure(one.pull());
    await reply.arrived;
    await two.device.wish(['c']);
    reply.release();
    expect((await first).code).toBe('LATE');
    await one.pull();
    expect(await lists(one)).toEqual([['c'], ['c']]);
    expect(await seen(one)).toEqual({ z: 'c' });
  });

  test('a_wish_taken_back_leaves_all_as_it_was', async () => {
    const [one, two] = await twoTabs();
    await one.device.wish(['b']);
    server.next('snapshot', (answer) => answer());
    server.next('snapshot', () => {
      throw new SyncError('NETWORK', 'no answer');
    });
    await failure(one.pull());
    expect((await one.state()).snapshot).toMatchObject({ pages: 1, isPart: true });
    await two.device.wish(['a']);
    expect((await one.state()).snapshot).toBeNull();
    await one.pull();
    expect(await seen(one)).toEqual({ x: 'a' });
    expect(await one.store.read((tx) => tx.staged(0))).toEqual([]);
  });

  test('both_carry_it_out', async () => {
    const [one, two] = await twoTabs();
    await one.device.wish(['b']);
    const tries = async (tab: TestDevice) => {
      for (let i = 0; i < 20; i++) await tab.pull().catch((error: SyncError) => expect(error.code).toBe('LATE'));
    };
    await Promise.all([tries(one), tries(two)]);
    expect(await seen(one)).toEqual({ y: 'b', y2: 'b', y3: 'b' });
  });
});

const deaths: Death[] = ['before', 'after', 'fails'];

test.each(deaths)('a change of the list survives a death %s each of its transactions', async (death) => {
  for (let at = 1, isComplete = false; !isComplete; at++) {
    server = new FakeServer();
    server.scopeFields = { notes: 'in' };
    laptop = await TestDevice.open(server, undefined, { rulesOf: () => ({}) });
    await write({ x: 'a', y: 'b', z: 'c', y2: 'b', y3: 'b' });
    const store = new MemoryStore();
    const phone = await open(['a', 'c'], store);
    await phone.sync();
    await phone.write('notes', 'x', { in: 'a', mine: true });
    await phone.write('notes', 'z', { in: 'd' });
    const killable = new KillableStore(store, at, death);
    isComplete = await killable.run(async () => {
      const tab = await open(['a', 'c'], killable);
      await tab.device.wish(['a', 'b']);
      await tab.settle();
    });
    const other = await open(['a', 'c'], store);
    await other.device.wish(['a', 'b']);
    await other.settle();
    expect(await seen(other)).toEqual({ x: 'a', y: 'b', y2: 'b', y3: 'b' });
    expect(server.rows('notes')).toMatchObject({ x: { mine: true }, z: { in: 'd' } });
    expect(await other.outbox()).toEqual([]);
    if (at > 100) throw new Error('it never ends');
  }
});
