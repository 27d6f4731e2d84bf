import { beforeEach, describe, expect, test } from 'vitest';
import { SyncError } from '../../src/error.ts';
import { MemoryStore } from '../../src/store/memory.ts';
import type { Store } from '../../src/store/store.ts';
import { App } from '../support/app.ts';
import { TestDevice, failure, never } from '../support/device.ts';
import { FakeServer } from '../support/server.ts';

let server: FakeServer;
let store: Store;
beforeEach(() => {
  server = new FakeServer();
  store = new MemoryStore();
});

const open = (options?: ConstructorParameters<typeof TestDevice>[2]) => TestDevice.open(server, store, options);

/** Rows that the app had before its tables were synced. */
async function existing(rows: { [pk: string]: unknown }): Promise<void> {
  // A device of another store wrote them.
  const other = await TestDevice.open(server, store, { tables: ['notes'] });
  await other.writeAll(Object.entries(rows).map(([pk, value]) => ['notes', pk, value as never]));
  const content = (await other.store.read((tx) => tx.rows('notes', null, 10_000)));
  await store.transaction((tx) => tx.clear([]));
  expect(await store.read((tx) => tx.rows('notes', null, 10_000))).toEqual(content);
}

describe('opening', () => {
  test('makes_a_device_of_its_own_in_an_empty_store', async () => {
    const phone = await open();
    const state = await phone.state();
    expect(state).toMatchObject({
      workspace: 'w', user: null, filter: null, tables: ['notes', 'files'], cursor: 0, proof: null, isComplete: false, snapshot: null, hlc: null,
    });
    expect(state.deviceId).toMatch(/^[0-9a-f-]{36}$/);
    expect((await (await TestDevice.open(server)).state()).deviceId).not.toBe(state.deviceId);
  });

  test('meets_the_device_that_is_there', async () => {
    const { deviceId } = await (await open()).state();
    const again = await open();
    expect((await again.state()).deviceId).toBe(deviceId);
  });

  test('refuses_a_store_of_another_workspace_and_leaves_it_as_it_is', async () => {
    const phone = await open();
    await phone.write('notes', 'a', { n: 1 });
    const before = await phone.state();
    expect((await failure(open({ workspace: 'other' }))).code).toBe('OTHER_WORKSPACE');
    expect(await phone.state()).toEqual(before);
    expect(await phone.outbox()).toHaveLength(1);
  });

  test.each([[null, 'ann'], ['ann', null], ['ann', 'bob']])('refuses_a_store_of_%j_for_%j', async (before, now) => {
    await open({ user: before });
    expect((await failure(open({ user: now }))).code).toBe('OTHER_USER');
    expect((await (await open({ user: before })).state()).user).toBe(before);
  });

  test('makes_ops_of_rows_that_were_there_before', async () => {
    await existing(Object.fromEntries(Array.from({ length: 300 }, (_, i) => [`n${i}`, { n: i }])));
    const phone = await open();
    expect(await phone.outbox()).toHaveLength(300);
    await phone.settle();
    expect(Object.keys(server.rows('notes'))).toHaveLength(300);
    await open();
    expect(await phone.outbox()).toEqual([]);
  });

  test('tells_of_a_row_that_cannot_be_synced_and_syncs_the_others', async () => {
    await existing({ a: { at: new Date(0) }, b: { n: 1 } });
    const phone = await open();
    expect((await phone.outbox()).map(({ pk }) => pk)).toEqual(['b']);
    expect(await phone.conflicts()).toMatchObject([{
      kind: 'refused', tableName: 'notes', pk: 'a', mine: null, error: { code: 'INVALID_RECORD', message: 'at is not JSON: Date' },
    }]);
    expect(await phone.rows('notes')).toHaveProperty('a');
  });
});

describe('the first pull or write before opening', () => {
  test('is_made_by_the_device_that_opening_meets', async () => {
    const phone = new TestDevice(server, store);
    await phone.write('notes', 'a', { n: 1 });
    const [op] = await phone.outbox();
    await phone.device.open();
    expect((await phone.state()).deviceId).toBe(op!.stamp.deviceId);
    await phone.settle();
    expect(server.rows('notes')).toEqual({ a: { n: 1 } });
    expect(server.head).toBe(1);
  });
});

describe('another filter', () => {
  test('begins_with_a_snapshot_of_its_own_and_keeps_the_outbox', async () => {
    const laptop = await TestDevice.open(server);
    await laptop.writeAll([['notes', 'a', { n: 1 }], ['files', 'b', { n: 1 }]]);
    await laptop.sync();
    let phone = await open();
    await phone.sync();
    await phone.write('files', 'mine', { n: 1 });
    phone = await open({ filter: ['notes'] });
    expect(await phone.state()).toMatchObject({ filter: ['notes'], cursor: 0, proof: null, snapshot: { pages: 0 } });
    server.calls.length = 0;
    await phone.pull();
    expect(server.calls.map(({ name, body }) => [name, body.tables])).toEqual([['snapshot', ['notes']], ['pull', ['notes']]]);
    expect(await phone.rows('notes')).toEqual({ a: { n: 1 } });
    // What is not pulled any more is not shown, but for what its user has written.
    expect(await phone.rows('files')).toEqual({ mine: { n: 1 } });
    phone = await open();
    await phone.settle();
    expect(await phone.rows('files')).toEqual({ b: { n: 1 }, mine: { n: 1 } });
    expect(server.rows('files')).toHaveProperty('mine');
  });

  test('ignores_the_reply_to_a_call_with_the_old_one', async () => {
    const laptop = await TestDevice.open(server);
    await laptop.writeAll([['notes', 'a', { n: 1 }], ['files', 'b', { n: 1 }]]);
    await laptop.sync();
    const phone = await open();
    const { arrived, release } = server.hold('pull');
    const late = phone.pull();
    await arrived;
    const filtered = await open({ filter: ['notes'] });
    release();
    expect((await failure(late)).code).toBe('LATE');
    expect(await filtered.state()).toMatchObject({ cursor: 0, proof: null });
    await filtered.pull();
    expect(await filtered.rows('files')).toEqual({});
  });

  test('does_not_acknowledge_the_cursor_of_the_old_one', async () => {
    const laptop = await TestDevice.open(server);
    await laptop.write('notes', 'a', { n: 1 });
    await laptop.sync();
    await (await open()).sync();
    const phone = await open({ filter: ['files'] });
    server.calls.length = 0;
    await phone.device.acknowledge(never);
    expect(server.calls).toEqual([]);
  });
});

describe('another list of tables', () => {
  beforeEach(async () => {
    const laptop = await TestDevice.open(server, undefined, { tables: ['notes', 'files', 'tags'] });
    await laptop.writeAll([['notes', 'a', { n: 1 }], ['files', 'b', { n: 1 }], ['tags', 'c', { n: 1 }], ['tags', 'gone', { n: 1 }]]);
    await laptop.write('tags', 'gone', null);
    await laptop.sync();
  });

  test('shows_records_that_were_kept_when_the_app_learns_of_their_table', async () => {
    let phone = await open();
    await phone.sync();
    expect(await phone.rows('tags')).toEqual({});
    expect((await phone.known('tags', 'c')).synced!.payload).toEqual({ n: 1 });
    server.calls.length = 0;
    phone = await open({ tables: ['notes', 'files', 'tags'] });
    expect(await phone.rows('tags')).toEqual({ c: { n: 1 } });
    expect((await phone.state()).snapshot).toBeNull();
    expect(server.calls).toEqual([]);
    expect(await phone.outbox()).toEqual([]);
  });

  test('without_one_keeps_what_was_written_of_it', async () => {
    let phone = await open();
    await phone.sync();
    await phone.write('files', 'mine', { n: 1 });
    phone = await open({ tables: ['notes'] });
    expect((await phone.state()).snapshot).not.toBeNull();
    await phone.settle();
    expect(server.rows('files')).toHaveProperty('mine');
    expect((await phone.known('files', 'b')).synced!.payload).toEqual({ n: 1 });
    expect(await phone.rows('notes')).toEqual({ a: { n: 1 } });
  });

  test('that_is_the_same_begins_nothing', async () => {
    await (await open()).sync();
    const before = await (await open()).state();
    expect(await (await open({ tables: ['files', 'notes'] })).state()).toEqual({ ...before, tables: ['files', 'notes'] });
  });

  test('to_which_a_table_comes_back_does_not_take_old_rows_for_edits', async () => {
    let phone = await open();
    await phone.sync();
    phone = await open({ tables: ['notes'] });
    await phone.sync();
    const laptop = await TestDevice.open(server);
    await laptop.pull();
    await laptop.write('files', 'b', { n: 2 });
    await laptop.write('files', 'd', { n: 1 });
    await laptop.sync();
    await phone.sync();
    phone = await open();
    await phone.settle();
    expect(server.rows('files')).toEqual({ b: { n: 2 }, d: { n: 1 } });
    expect(await phone.rows('files')).toEqual({ b: { n: 2 }, d: { n: 1 } });
  });
});

test('a_device_whose_store_was_cleared_is_another_one', async () => {
  const phone = await open();
  await phone.write('notes', 'a', { n: 1 });
  await phone.settle();
  const before = await phone.state();
  const { arrived, release } = server.hold('pull');
  const late = phone.pull();
  await arrived;
  await store.transaction((tx) => tx.clear(['notes', 'files']));
  release();
  expect((await failure(late)).code).toBe('LATE');
  const again = await open();
  expect((await again.state()).deviceId).not.toBe(before.deviceId);
  expect(await again.rows('notes')).toEqual({});
  expect(await again.device.receive({ changes: [], nextCursor: 9, hasMore: false, serverVersion: 9, requiresSnapshot: false, proof: null }, before)).toBe(false);
  await again.sync();
  expect(await again.rows('notes')).toEqual({ a: { n: 1 } });
});

describe('after the browser has thrown the records away', () => {
  const evict = () => store.transaction((tx) => tx.clear(['notes', 'files']));

  test('each_tab_goes_on_with_the_device_that_the_first_one_makes', async () => {
    const [one, two] = [await open(), await open()];
    await one.write('notes', 'a', { n: 1 });
    await one.settle();
    const before = await one.state();
    await evict();
    await one.sync();
    await two.write('notes', 'b', { n: 2 });
    expect((await two.outbox()).map(({ stamp }) => stamp.deviceId)).toEqual([(await one.state()).deviceId]);
    await two.settle();
    await one.write('notes', 'c', { n: 3 });
    await one.settle();
    expect(server.rows('notes')).toEqual({ a: { n: 1 }, b: { n: 2 }, c: { n: 3 } });
    for (const tab of [one, two]) expect(await tab.rows('notes')).toEqual(server.rows('notes'));
    expect((await one.state()).deviceId).not.toBe(before.deviceId);
  });

  test.each([{ user: 'bob' }, { workspace: 'other' }])('a_tab_does_not_go_on_with_what_is_of_%j', async (other) => {
    const phone = await open({ user: 'ann' });
    await evict();
    await open({ user: 'ann', ...other });
    expect((await failure(phone.write('notes', 'a', { n: 1 }))).code).toBe('LOGGED_OUT');
  });

  test('what_a_tab_has_got_anew_is_no_edit_at_the_next_start', async () => {
    const other = await TestDevice.open(server);
    await other.write('notes', 'a', { n: 1, isHidden: true });
    await other.push();
    const phone = await App.open({ server, tables: { notes: { fields: ['id', 'n'] } } });
    await phone.store.transaction((tx) => tx.clear(['notes']));
    await phone.device.sync();
    expect(await phone.notes.toArray()).toEqual([{ id: 'a', n: 1 }]);
    await phone.device.device.open();
    expect(await phone.ops()).toEqual([]);
  });
});

describe('a user who has logged out', () => {
  const logout = () => store.transaction(async (tx) => {
    const state = (await tx.state())!;
    await tx.clear(['notes', 'files']);
    await tx.setState({ ...state, isClosed: true });
  });

  test('writes_and_hears_no_more_in_another_tab', async () => {
    const phone = await open();
    const { arrived, release } = server.hold('pull');
    const late = phone.pull();
    await arrived;
    await logout();
    release();
    expect((await failure(late)).code).toBe('LOGGED_OUT');
    expect((await failure(phone.write('notes', 'a', { n: 1 }))).code).toBe('LOGGED_OUT');
    expect((await failure(phone.sync())).code).toBe('LOGGED_OUT');
    expect(await phone.rows('notes')).toEqual({});
  });

  test('leaves_the_store_to_another_user_and_another_device', async () => {
    const phone = await open({ user: 'ann' });
    const { deviceId } = await phone.state();
    await logout();
    const next = await open({ user: 'bob', workspace: 'other' });
    const state = await next.state();
    expect([state.user, state.workspace, state.isClosed, state.cursor]).toEqual(['bob', 'other', undefined, 0]);
    expect(state.deviceId).not.toBe(deviceId);
    expect((await failure(phone.write('notes', 'a', { n: 1 }))).code).toBe('LOGGED_OUT');
  });

  test('is_not_taken_for_the_next_one_who_has_no_name_either', async () => {
    const phone = await open();
    await logout();
    await open();
    expect((await failure(phone.write('notes', 'a', { n: 1 }))).code).toBe('LOGGED_OUT');
  });
});

test('a_device_goes_on_after_the_hlcs_of_its_outbox_though_the_system_clock_went_back', async () => {
  const phone = await open({ now: () => 1_700_000_000_000 });
  await phone.write('notes', 'a', { n: 1 });
  const again = await open({ now: () => 1_600_000_000_000 });
  await again.write('notes', 'b', { n: 1 });
  const [first, second] = await again.outbox();
  expect(second!.stamp.hlc > first!.stamp.hlc).toBe(true);
  await again.settle();
  const later = await open({ now: () => 1_600_000_000_000 });
  await later.write('notes', 'c', { n: 1 });
  expect((await later.outbox())[0]!.stamp.hlc > second!.stamp.hlc).toBe(true);
});

test('an_error_of_the_body_of_a_transaction_leaves_the_store_as_it_was', async () => {
  const phone = await open();
  await phone.write('notes', 'a', { n: 1 });
  await expect(store.transaction(async (tx) => {
    await tx.clear(['notes']);
    throw new SyncError('NO', 'no');
  })).rejects.toThrow('no');
  expect(await phone.outbox()).toHaveLength(1);
  expect(await phone.rows('notes')).toEqual({ a: { n: 1 } });
});
