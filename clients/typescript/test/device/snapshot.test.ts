import { beforeEach, describe, expect, test } from 'vitest';
import { SyncError } from '../../src/error.ts';
import type { Store } from '../../src/store/store.ts';
import { TestDevice, failure } from '../support/device.ts';
import { FakeServer } from '../support/server.ts';

let server: FakeServer;
let laptop: TestDevice;
beforeEach(async () => {
  server = new FakeServer();
  laptop = await TestDevice.open(server);
});

const put = async (...pks: string[]) => {
  await laptop.writeAll(pks.map((pk) => ['notes', pk, { pk }]));
  await laptop.sync();
};
const remove = async (pk: string) => {
  await laptop.write('notes', pk, null);
  await laptop.sync();
};
const rowsOf = (...pks: string[]) => Object.fromEntries(pks.map((pk) => [pk, { pk }]));
const open = (store?: Store) => TestDevice.open(server, store, { pageLimit: 2 });
const tokens = () => server.named('snapshot').map(({ body }) => (body.pageToken ? JSON.parse(body.pageToken).after : null));

/** A device that has seen a to e, and was away while a was deleted and the delete purged. */
async function expired(): Promise<TestDevice> {
  const phone = await open();
  await put('a', 'b', 'c', 'd', 'e');
  await phone.sync();
  await remove('a');
  await put('f');
  server.gc();
  server.calls.length = 0;
  return phone;
}

describe('a snapshot', () => {
  test('replaces what is synced by exactly what is listed', async () => {
    const phone = await expired();
    expect(await phone.rows('notes')).toHaveProperty('a');
    await phone.sync();
    expect(await phone.rows('notes')).toEqual(rowsOf('b', 'c', 'd', 'e', 'f'));
    expect((await phone.known('notes', 'a')).synced).toBeUndefined();
    expect(await phone.state()).toMatchObject({ cursor: 7, proof: '7:7', snapshot: null, historyLost: false, generation: 1 });
    expect(server.named('cursor').at(-1)!.body.version).toBe(7);
  });

  test('leaves_the_outbox_and_shows_it', async () => {
    const phone = await expired();
    await phone.write('notes', 'b', { pk: 'b', mine: true });
    await phone.write('notes', 'z', { pk: 'z' });
    await phone.pull();
    expect(await phone.rows('notes')).toEqual({ ...rowsOf('b', 'c', 'd', 'e', 'f', 'z'), b: { pk: 'b', mine: true } });
    expect(await phone.outbox()).toHaveLength(2);
    await phone.settle();
    expect(await phone.outbox()).toEqual([]);
  });

  test('settles_the_outbox_at_its_end', async () => {
    const phone = await expired();
    await phone.write('notes', 'z', { pk: 'z' });
    await phone.push();
    await phone.pull();
    expect(await phone.outbox()).toEqual([]);
    expect(server.named('push')).toHaveLength(1);
  });

  test('comes_before_any_push_or_pull_once_it_has_begun', async () => {
    const phone = await expired();
    server.next('snapshot', () => {
      throw new SyncError('NETWORK', 'no answer');
    });
    await failure(phone.pull());
    expect((await phone.state()).snapshot).not.toBeNull();
    await phone.write('notes', 'z', { pk: 'z' });
    server.calls.length = 0;
    await phone.sync();
    expect([...new Set(server.calls.map(({ name }) => name))]).toEqual(['snapshot', 'push', 'pull', 'cursor']);
  });

  test('goes_on_after_a_restart_with_the_page_that_is_missing', async () => {
    let phone = await expired();
    server.next('snapshot', (answer) => answer());
    server.next('snapshot', (answer) => answer());
    server.loseReply('snapshot');
    await failure(phone.pull());
    expect((await phone.state()).snapshot).toMatchObject({ pages: 2, records: 4, isWhole: false });
    expect(await phone.rows('notes')).toEqual(rowsOf('a', 'b', 'c', 'd', 'e'));
    server.calls.length = 0;
    phone = await open(phone.store);
    await phone.pull();
    expect(tokens()).toEqual(['notes\0e']);
    expect(await phone.rows('notes')).toEqual(rowsOf('b', 'c', 'd', 'e', 'f'));
  });

  test('that_expired_begins_again', async () => {
    const phone = await expired();
    server.next('snapshot', (answer) => answer());
    server.next('snapshot', () => {
      throw new SyncError('SX001', 'snapshot expired', { status: 409 });
    });
    await phone.pull();
    expect(tokens()).toEqual([null, 'notes\0c', null, 'notes\0c', 'notes\0e']);
    expect(await phone.rows('notes')).toEqual(rowsOf('b', 'c', 'd', 'e', 'f'));
    expect(phone.events('progress').map(({ received }) => received)).toEqual([2, 2, 4, 5, 5, 5, 5, 5]);
  });

  test('forgets_the_pages_of_one_that_expired', async () => {
    const phone = await expired();
    server.next('snapshot', (answer) => answer());
    server.next('snapshot', (answer) => answer());
    server.next('snapshot', () => {
      throw new SyncError('SX001', 'snapshot expired', { status: 409 });
    });
    // Only one page is left of it now.
    for (const pk of ['b', 'c', 'd']) await remove(pk);
    server.gc();
    await phone.pull();
    expect(await phone.rows('notes')).toEqual(rowsOf('e', 'f'));
    expect(await phone.store.read((tx) => tx.staged(0))).toEqual([]);
  });

  test('whose_token_is_refused_begins_again', async () => {
    const phone = await expired();
    server.next('snapshot', (answer) => answer());
    server.next('snapshot', () => {
      throw new SyncError('22023', 'invalid page_token', { status: 400 });
    });
    await phone.pull();
    expect(tokens()).toEqual([null, 'notes\0c', null, 'notes\0c', 'notes\0e']);
  });

  test('that_is_refused_on_its_first_page_does_not_go_round_in_circles', async () => {
    const phone = await expired();
    server.next('snapshot', () => {
      throw new SyncError('22023', 'invalid request', { status: 400 });
    });
    expect(await failure(phone.pull())).toMatchObject({ code: '22023', remedy: 'stop' });
    expect(tokens()).toEqual([null]);
  });

  test.each(['SX002', 'SX004', '08006', 'NETWORK'])('that_meets_%s_keeps_its_pages', async (code) => {
    const phone = await expired();
    server.next('snapshot', (answer) => answer());
    server.next('snapshot', () => {
      throw new SyncError(code, 'not now', { status: 503 });
    });
    expect(await failure(phone.pull())).toMatchObject({ code, remedy: 'later' });
    await phone.pull();
    expect(tokens()).toEqual([null, 'notes\0c', 'notes\0c', 'notes\0e']);
  });

  test('with_a_record_that_changed_between_its_pages_is_completed_by_the_pull', async () => {
    const phone = await expired();
    server.next('snapshot', (answer) => answer());
    const { arrived, release } = server.hold('snapshot');
    const pull = phone.pull();
    await arrived;
    await laptop.write('notes', 'b', { pk: 'b', n: 2 });
    await laptop.write('notes', 'f', { pk: 'f', n: 2 });
    await laptop.sync();
    release();
    await pull;
    expect(await phone.rows('notes')).toEqual({ ...rowsOf('c', 'd', 'e'), b: { pk: 'b', n: 2 }, f: { pk: 'f', n: 2 } });
  });

  test('of_an_empty_workspace_is_one_page_without_records', async () => {
    const phone = await expired();
    server.restore(0);
    await phone.sync();
    expect(await phone.rows('notes')).toEqual({});
    expect(await phone.state()).toMatchObject({ cursor: 0, proof: null, snapshot: null });
  });

  test('does_not_write_records_that_are_as_they_were', async () => {
    const phone = await expired();
    const saved: string[] = [];
    const { store } = phone;
    const counting: Store = {
      name: store.name,
      read: (body) => store.read(body),
      transaction: (body) => store.transaction((tx) => body(new Proxy(tx, {
        get: (target, name: keyof typeof tx) => (name !== 'save' ? (target[name] as () => void).bind(target) : async (changes: Parameters<typeof tx.save>[0]) => {
          saved.push(...changes.filter(({ entries }) => !entries).map(({ was }) => was.key));
          await target.save(changes);
        }),
      }))),
    };
    await (await open(counting)).pull();
    expect(saved).toEqual(['notes\0f', 'notes\0a']);
  });

  test('of_more_records_than_are_stored_at_once_is_whole', async () => {
    await put(...Array.from({ length: 620 }, (_, i) => `n${i}`));
    const phone = await TestDevice.open(server);
    await phone.pull();
    await remove('n0');
    await put('last');
    server.gc();
    await phone.pull();
    expect(Object.keys(await phone.rows('notes'))).toHaveLength(620);
    expect(phone.events('progress').filter(({ stored }) => stored > 0)).toEqual([
      { received: 620, stored: 150, isOver: false },
      { received: 620, stored: 300, isOver: false },
      { received: 620, stored: 450, isOver: false },
      { received: 620, stored: 600, isOver: false },
      { received: 620, stored: 620, isOver: false },
      { received: 620, stored: 620, isOver: true },
    ]);
  });
});

describe('a snapshot of a standby that lags', () => {
  test('is_discarded_and_a_pull_comes_before_the_next_one', async () => {
    const phone = await expired();
    // The pull of the primary requires a snapshot, which a standby answers that is behind.
    const standby = server.at(3);
    server.next('pull', (answer) => {
      const reply = answer();
      server.standby = standby;
      return reply;
    });
    server.next('pull', (answer) => {
      server.standby = undefined;
      return answer();
    });
    const before = (await phone.state()).cursor;
    await phone.pull();
    expect(before).toBe(5);
    expect(server.calls.map(({ name }) => name)).toEqual(['pull', 'snapshot', 'snapshot', 'pull', 'snapshot', 'snapshot', 'snapshot', 'pull']);
    expect(await phone.rows('notes')).toEqual(rowsOf('b', 'c', 'd', 'e', 'f'));
    expect((await phone.state()).cursor).toBe(7);
  });

  test('takes_nothing_back_that_the_device_has', async () => {
    const phone = await expired();
    const standby = server.at(3);
    server.next('pull', (answer) => {
      const reply = answer();
      server.standby = standby;
      return reply;
    });
    await phone.pull();
    expect(await phone.rows('notes')).toEqual(rowsOf('a', 'b', 'c', 'd', 'e'));
    expect(await phone.state()).toMatchObject({ cursor: 5, snapshot: null, generation: 0 });
    expect(await phone.store.read((tx) => tx.staged(0))).toEqual([]);
  });
});

describe('a server that lost history', () => {
  test('is_noticed_by_the_proof_although_versions_are_used_again', async () => {
    const phone = await open();
    await put('a', 'b', 'c');
    await phone.sync();
    server.restore(1);
    const other = await TestDevice.open(server);
    await other.writeAll(['x', 'y', 'z'].map((pk) => ['notes', pk, { pk }]));
    await other.sync();
    await phone.sync();
    expect(await phone.rows('notes')).toEqual(rowsOf('a', 'x', 'y', 'z'));
    expect(await phone.state()).toMatchObject({ cursor: 4, historyLost: false, generation: 1 });
  });

  test('is_believed_with_a_snapshot_below_the_cursor', async () => {
    const phone = await open();
    await put('a', 'b', 'c');
    await phone.sync();
    server.restore(1);
    await phone.sync();
    expect(await phone.rows('notes')).toEqual(rowsOf('a'));
    expect((await phone.state()).cursor).toBe(1);
  });

  test('is_remembered_over_a_restart_in_the_middle_of_the_snapshot', async () => {
    let phone = await open();
    await put('a', 'b', 'c', 'd');
    await phone.sync();
    server.restore(3);
    server.loseReply('snapshot');
    await failure(phone.pull());
    expect((await phone.state()).historyLost).toBe(true);
    phone = await open(phone.store);
    await phone.pull();
    expect((await phone.state()).cursor).toBe(3);
    expect(await phone.rows('notes')).toEqual(rowsOf('a', 'b', 'c'));
  });

  test('gets_pending_ops_again_as_the_same_ops', async () => {
    const phone = await open();
    await put('a');
    await phone.sync();
    await phone.write('notes', 'b', { pk: 'b' });
    await phone.push();
    server.restore(1);
    const [op] = await phone.outbox();
    await phone.settle();
    expect(server.log[1]!.op).toEqual(op);
    expect(await phone.outbox()).toEqual([]);
    expect(await phone.conflicts()).toEqual([]);
  });

  test('gets_an_answered_op_again_also_where_the_device_had_not_pulled_so_far', async () => {
    const phone = await open();
    await put('a');
    await phone.sync();
    await phone.write('notes', 'b', { pk: 'b' });
    await phone.push();
    server.restore(1);
    await put('c');
    await phone.settle();
    expect(Object.keys(server.rows('notes'))).toEqual(['a', 'c', 'b']);
    expect(await phone.outbox()).toEqual([]);
  });

  test('offers_own_edits_that_were_synced_and_are_gone', async () => {
    const phone = await open();
    await put('a', 'b', 'c', 'd');
    await phone.sync();
    await phone.write('notes', 'a', { pk: 'a', mine: 1 });
    await phone.write('notes', 'b', null);
    await phone.write('notes', 'new', { pk: 'new' });
    await phone.write('files', 'f', { pk: 'f' });
    await phone.settle();
    await laptop.sync();
    await laptop.write('notes', 'c', { pk: 'c', theirs: 1 });
    await laptop.sync();
    await phone.sync();
    server.restore(4);
    await phone.sync();
    expect((await phone.conflicts()).map(({ id: _, at: __, ...conflict }) => conflict).sort((x, y) => (x.pk < y.pk ? -1 : 1))).toEqual([
      { kind: 'restored', tableName: 'notes', pk: 'a', mine: { pk: 'a', mine: 1 }, theirs: { pk: 'a' } },
      { kind: 'restored', tableName: 'notes', pk: 'b', mine: null, theirs: { pk: 'b' } },
      { kind: 'restored', tableName: 'files', pk: 'f', mine: { pk: 'f' }, theirs: null },
      { kind: 'restored', tableName: 'notes', pk: 'new', mine: { pk: 'new' }, theirs: null },
    ]);
    // Until its user decides, the record is what the server has.
    expect(await phone.rows('notes')).toEqual(rowsOf('a', 'b', 'c', 'd'));
    await phone.write('notes', 'new', { pk: 'new' });
    await phone.settle();
    expect(server.rows('notes')).toHaveProperty('new');
  });

  test('offers_nothing_when_the_log_was_only_purged', async () => {
    const phone = await expired();
    await phone.write('notes', 'g', { pk: 'g' });
    await phone.settle();
    await remove('b');
    await laptop.pull();
    await laptop.write('notes', 'g', null);
    await laptop.sync();
    await put('h');
    server.gc();
    await phone.sync();
    expect(await phone.rows('notes')).toEqual(rowsOf('c', 'd', 'e', 'f', 'h'));
    expect(await phone.conflicts()).toEqual([]);
  });

  test('whose_workspace_is_gone_is_one_too', async () => {
    const phone = await open();
    await phone.write('notes', 'a', { pk: 'a' });
    await phone.settle();
    server.restore(0);
    await phone.sync();
    expect(await phone.rows('notes')).toEqual({});
    expect(await phone.conflicts()).toMatchObject([{ kind: 'restored', pk: 'a' }]);
  });
});
