import 'fake-indexeddb/auto';
import Dexie, { liveQuery } from 'dexie';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { keyOf } from '../../src/store/store.ts';
import { App } from '../support/app.ts';

let app: App;
beforeEach(async () => {
  app = await App.open();
});

const note = (id: string, n = 1) => ({ id, n });
const many = (length: number, n = 1) => Array.from({ length }, (_, i) => note(`n${String(i).padStart(3, '0')}`, n));

/** Records that the server has, and this device. */
async function synced(...notes: { id: string }[]): Promise<void> {
  await app.notes.bulkPut(notes);
  await app.device.settle();
  expect(await app.ops()).toEqual([]);
}

describe('what the app writes becomes ops:', () => {
  test('add', async () => {
    await app.notes.add(note('a'));
    expect(await app.ops()).toEqual([['put', 'a', note('a')]]);
  });

  test('add_of_what_is_there_fails_and_is_none', async () => {
    await app.notes.add(note('a'));
    await expect(app.notes.add(note('a', 2))).rejects.toThrow(Dexie.ConstraintError);
    expect(await app.ops()).toEqual([['put', 'a', note('a')]]);
    expect(await app.notes.get('a')).toEqual(note('a'));
  });

  test('put', async () => {
    await synced(note('a'));
    await app.notes.put(note('a', 2));
    await app.notes.put(note('b'));
    expect(await app.ops()).toEqual([['patch', 'a', { n: 2 }], ['put', 'b', note('b')]]);
  });

  test('put_of_the_same_is_none', async () => {
    await synced(note('a'));
    await app.notes.put(note('a'));
    expect(await app.ops()).toEqual([]);
  });

  test('update', async () => {
    await synced(note('a'));
    expect(await app.notes.update('a', { n: 2 })).toBe(1);
    expect(await app.notes.update('never', { n: 2 })).toBe(0);
    expect(await app.ops()).toEqual([['patch', 'a', { n: 2 }]]);
  });

  test('update_of_a_member_within_a_field_writes_the_field', async () => {
    await app.notes.put({ id: 'a', place: { city: 'Bern', zip: 3000 } });
    await app.device.settle();
    await app.notes.update('a', { 'place.city': 'Basel' });
    expect(await app.ops()).toEqual([['patch', 'a', { place: { city: 'Basel', zip: 3000 } }]]);
  });

  test('update_that_takes_a_field_away_is_a_put', async () => {
    await app.notes.put({ id: 'a', n: 1, m: 1 });
    await app.device.settle();
    await app.notes.update('a', { n: undefined });
    expect(await app.ops()).toEqual([['put', 'a', { id: 'a', m: 1 }]]);
  });

  test('upsert', async () => {
    await synced(note('a'));
    await app.notes.upsert('a', { n: 2 });
    await app.notes.upsert('b', { n: 1 });
    expect(await app.ops()).toEqual([['patch', 'a', { n: 2 }], ['put', 'b', note('b')]]);
  });

  test('delete', async () => {
    await synced(note('a'));
    await app.notes.delete('a');
    await app.notes.delete('never');
    expect(await app.ops()).toEqual([['delete', 'a', undefined]]);
  });

  test('clear', async () => {
    await synced(note('a'), note('b'));
    await app.notes.put(note('unsent'));
    await app.notes.clear();
    expect(await app.ops()).toEqual([['delete', 'a', undefined], ['delete', 'b', undefined]]);
    expect(await app.notes.count()).toBe(0);
  });

  test.each<[string, (app: App) => Promise<unknown>, string[]]>([
    ['above', ({ notes }) => notes.where('id').above('n002').delete(), ['n003', 'n004', 'n005']],
    ['belowOrEqual', ({ notes }) => notes.where('id').belowOrEqual('n001').delete(), ['n000', 'n001']],
    ['between', ({ notes }) => notes.where('id').between('n001', 'n003').delete(), ['n001', 'n002']],
    ['startsWith', ({ notes }) => notes.where('id').startsWith('n00').delete(), ['n000', 'n001', 'n002', 'n003', 'n004', 'n005']],
    ['equals', ({ notes }) => notes.where('id').equals('n002').delete(), ['n002']],
    ['no_range', ({ notes }) => notes.where('id').between('n003', 'n001').delete(), []],
    ['none_of_a_list', ({ notes }) => notes.where('id').anyOf([]).delete(), []],
    ['all', ({ notes }) => notes.toCollection().delete(), ['n000', 'n001', 'n002', 'n003', 'n004', 'n005']],
    ['a_limit', ({ notes }) => notes.orderBy('id').reverse().limit(2).delete(), ['n004', 'n005']],
    ['anyOf', ({ notes }) => notes.where('id').anyOf('n001', 'n004', 'never').delete(), ['n001', 'n004']],
    ['a_filter', ({ notes }) => notes.filter(({ id }) => id > 'n003').delete(), ['n004', 'n005']],
    ['an_index', ({ notes }) => notes.where('n').equals(1).delete(), ['n000', 'n001', 'n002', 'n003', 'n004', 'n005']],
    ['bulkDelete', ({ notes }) => notes.bulkDelete(['n000', 'never', 'n005']), ['n000', 'n005']],
  ])('delete_by_%s', async (_, run, gone) => {
    await synced(...many(6));
    await run(app);
    expect((await app.ops()).sort()).toEqual(gone.map((pk) => ['delete', pk, undefined]));
    expect(await app.notes.count()).toBe(6 - gone.length);
  });

  test('modify_by_values', async () => {
    await synced(...many(3));
    await app.notes.where('n').equals(1).modify({ n: 2 });
    expect(await app.ops()).toEqual(many(3).map(({ id }) => ['patch', id, { n: 2 }]));
  });

  test('modify_by_a_function_which_may_delete', async () => {
    await synced(...many(3));
    await app.notes.toCollection().modify((note, ref: { value?: unknown }) => {
      if (note.id === 'n001') delete ref.value;
      else note.n = 2;
    });
    expect((await app.ops()).sort()).toEqual([['delete', 'n001', undefined], ['patch', 'n000', { n: 2 }], ['patch', 'n002', { n: 2 }]]);
  });

  test.each([3, 30, 31, 300])('bulkPut_of_%i', async (length) => {
    await synced(...many(length).slice(0, 2));
    await app.notes.bulkPut(many(length, 2));
    const ops = await app.ops();
    expect(ops.slice(0, 3)).toEqual([['patch', 'n000', { n: 2 }], ['patch', 'n001', { n: 2 }], ['put', 'n002', note('n002', 2)]]);
    expect(ops).toHaveLength(length);
  });

  test.each([4, 40])('bulkAdd_of_%i_keeps_those_that_did_not_fail', async (length) => {
    await synced(note('n001', 9));
    await expect(app.notes.bulkAdd(many(length))).rejects.toThrow(Dexie.BulkError);
    expect(await app.ops()).toEqual(many(length).filter(({ id }) => id !== 'n001').map((one) => ['put', one.id, one]));
    expect(await app.notes.get('n001')).toEqual(note('n001', 9));
  });

  test('bulkAdd_of_one_twice_is_the_first', async () => {
    await app.notes.bulkAdd([note('a', 1), note('a', 2)]).catch(() => {});
    expect(await app.ops()).toEqual([['put', 'a', note('a', 1)]]);
    expect(await app.notes.get('a')).toEqual(note('a', 1));
  });

  test('bulkPut_of_one_twice_is_the_last', async () => {
    await app.notes.bulkPut([note('a', 1), note('b', 1), note('a', 2)]);
    expect(await app.ops()).toEqual([['put', 'a', note('a', 2)], ['put', 'b', note('b', 1)]]);
  });

  test('bulkUpdate', async () => {
    await synced(...many(3));
    await app.notes.bulkUpdate([{ key: 'n000', changes: { n: 2 } }, { key: 'never', changes: { n: 2 } }, { key: 'n002', changes: { n: 3 } }]);
    expect(await app.ops()).toEqual([['patch', 'n000', { n: 2 }], ['patch', 'n002', { n: 3 }]]);
  });

  test('put_of_an_instance_of_a_mapped_class', async () => {
    class Note {
      id = 'a';
      n = 1;
    }
    app.notes.mapToClass(Note);
    await app.notes.put(note('a'));
    const read = await app.notes.get('a');
    expect(read).toBeInstanceOf(Note);
    await app.notes.update('a', { n: 2 });
    expect(await app.ops()).toEqual([['put', 'a', note('a', 2)]]);
  });
});

describe('a transaction of the app', () => {
  test('that_is_complete_is_told_once', async () => {
    await app.db.transaction('rw', app.notes, app.files, async () => {
      await app.notes.put(note('a'));
      await app.files.put(note('b'));
      await app.notes.update('a', { n: 2 });
    });
    expect(app.captured).toBe(1);
    expect(await app.ops()).toEqual([['put', 'a', note('a', 2)], ['put', 'b', note('b')]]);
    await app.db.transaction('r', app.notes, () => app.notes.toArray());
    expect(app.captured).toBe(1);
  });

  test('that_aborts_leaves_neither_rows_nor_ops', async () => {
    await synced(note('a'));
    const before = await app.device.state();
    await expect(app.db.transaction('rw', app.notes, async () => {
      await app.notes.put(note('b'));
      await app.notes.clear();
      throw new Error('no');
    })).rejects.toThrow('no');
    expect(await app.ops()).toEqual([]);
    expect(await app.notes.toArray()).toEqual([note('a')]);
    expect(await app.device.state()).toEqual(before);
    expect(await app.syncedPayload('a')).toEqual(note('a'));
  });

  test('whose_op_cannot_be_stored_fails', async () => {
    await app.notes.put(note('a'));
    const [stored] = await app.stored('_sync_outbox') as { seq: number }[];
    const { add } = IDBObjectStore.prototype;
    const failing = vi.spyOn(IDBObjectStore.prototype, 'add').mockImplementation(function (this: IDBObjectStore, value) {
      return add.call(this, { ...value, seq: stored!.seq });
    });
    const error = { name: 'AbortError', inner: { name: 'ConstraintError' } };
    await expect(app.notes.put(note('b'))).rejects.toMatchObject(error);
    await expect(app.db.transaction('rw', app.notes, () => app.notes.put(note('b')))).rejects.toMatchObject(error);
    failing.mockRestore();
    expect(await app.notes.toArray()).toEqual([note('a')]);
    expect(await app.ops()).toEqual([['put', 'a', note('a')]]);
  });

  test('with_another_within_is_one', async () => {
    await app.db.transaction('rw', app.notes, app.files, async () => {
      await app.notes.put(note('a'));
      await app.db.transaction('rw', app.files, async () => {
        await app.files.put(note('b'));
      });
      await app.db.transaction('rw', app.files, async () => {
        await app.files.delete('b');
      });
    });
    expect(await app.ops()).toEqual([['put', 'a', note('a')]]);
  });

  test('whose_inner_one_fails_and_is_caught_aborts_all_the_same', async () => {
    await app.db.transaction('rw', app.notes, async () => {
      await app.notes.put(note('a'));
      await app.db.transaction('rw', app.notes, async () => {
        await app.notes.put(note('b'));
        throw new Error('no');
      });
    }).catch(() => {});
    expect(await app.ops()).toEqual([]);
    expect(await app.notes.count()).toBe(0);
  });

  test('sees_its_own_writes', async () => {
    await app.db.transaction('rw', app.notes, async () => {
      await app.notes.bulkPut(many(50));
      expect(await app.notes.count()).toBe(50);
      await app.notes.where('id').above('n009').delete();
      expect(await app.notes.toArray()).toEqual(many(10));
    });
    expect(await app.ops()).toEqual(many(10).map((one) => ['put', one.id, one]));
  });

  test('may_write_without_waiting_the_last_write_counts', async () => {
    await synced(note('a'), note('b'));
    await app.db.transaction('rw', app.notes, async () => {
      await Promise.all([
        app.notes.put({ ...note('a', 2), m: 1 }),
        app.notes.put({ ...note('a', 3), m: 1 }),
        app.notes.delete('b'),
        app.notes.put(note('b', 4)),
        app.notes.add(note('c')),
        app.notes.put(note('c', 2)),
      ]);
    });
    expect(await app.notes.toArray()).toEqual([{ ...note('a', 3), m: 1 }, note('b', 4), note('c', 2)]);
    expect(await app.syncedPayload('a')).toEqual(note('a'));
    expect(await app.syncedPayload('b')).toEqual(note('b'));
    await app.device.settle();
    expect(app.server.rows('notes')).toEqual({ a: { ...note('a', 3), m: 1 }, b: note('b', 4), c: note('c', 2) });
  });

  test('may_write_without_waiting_records_whose_ops_were_made_together', async () => {
    await app.notes.bulkAdd(many(40));
    await app.db.transaction('rw', app.notes, async () => {
      await Promise.all(many(40).map(({ id }, i) => app.notes.put(note(id, 100 + i))));
    });
    expect(await app.ops()).toEqual(many(40).map(({ id }, i) => ['put', id, note(id, 100 + i)]));
  });

  test('reads_what_it_has_written_without_waiting', async () => {
    await synced(...many(50));
    await app.db.transaction('rw', app.notes, async () => {
      void app.notes.put(note('a'));
      void app.notes.put(note('b'));
      expect(await app.notes.get('b')).toEqual(note('b'));
      void app.notes.where('id').above('n001').delete();
      expect(await app.notes.toCollection().primaryKeys()).toEqual(['a', 'b', 'n000', 'n001']);
      void app.notes.bulkPut(many(40, 2));
      expect(await app.notes.where('n').equals(2).count()).toBe(40);
      void app.notes.clear();
      void app.notes.toCollection().modify({ n: 3 });
      expect(await app.notes.bulkGet(['a', 'n000'])).toEqual([undefined, undefined]);
      void app.notes.put(note('c'));
      void app.notes.put(note('d'));
      const seen: string[] = [];
      await app.notes.where('id').above('a').each(({ id }) => seen.push(id));
      expect(seen).toEqual(['c', 'd']);
    });
    expect(await app.notes.toArray()).toEqual([note('c'), note('d')]);
    expect((await app.ops()).filter(([operation]) => operation === 'put')).toEqual([['put', 'c', note('c')], ['put', 'd', note('d')]]);
  });

  test('may_begin_with_writes_that_do_not_wait_in_an_empty_store', async () => {
    app = new App();
    await app.db.transaction('rw', app.notes, async () => {
      await Promise.all(many(5).map((one) => app.notes.add(one)));
    });
    const devices = new Set((await app.device.outbox()).map(({ stamp }) => stamp.deviceId));
    expect([...devices]).toEqual([(await app.device.state()).deviceId]);
  });

  test('goes_on_after_a_write_that_failed_and_was_caught', async () => {
    await app.notes.add(note('a'));
    await app.db.transaction('rw', app.notes, async () => {
      const failing = app.notes.add(note('a', 2)).catch(() => {});
      const other = app.notes.add(note('b'));
      await Promise.all([failing, other]);
      await app.notes.put({ id: 'c', at: new Date() }).catch(() => {});
      await app.notes.add(note('d'));
    });
    expect((await app.ops()).map(([, pk]) => pk)).toEqual(['a', 'b', 'd']);
  });

  test('of_other_tables_is_left_alone', async () => {
    app = await App.open({
      declare: (db) => db.version(1).stores({ notes: 'id', drafts: '++id' }),
      tables: { notes: {} },
    });
    await app.db.transaction('rw', 'drafts', async () => {
      await app.db.table('drafts').add({ text: new Date(0) });
    });
    expect(app.captured).toBe(0);
    expect(await app.ops()).toEqual([]);
  });

  test('may_write_tables_that_are_synced_and_others', async () => {
    app = await App.open({
      declare: (db) => db.version(1).stores({ notes: 'id', drafts: '++id' }),
      tables: { notes: {} },
    });
    await app.db.transaction('rw', 'drafts', 'notes', async () => {
      await app.db.table('drafts').add({ text: 'x' });
      await app.notes.add(note('a'));
    });
    expect(await app.ops()).toEqual([['put', 'a', note('a')]]);
  });
});

describe('writes before the start', () => {
  test('are_captured_by_the_device_that_starts_later', async () => {
    app = new App();
    await app.notes.put(note('a'));
    await app.notes.put(note('a', 2));
    await app.device.device.open();
    expect(await app.ops()).toEqual([['put', 'a', note('a', 2)]]);
    expect((await app.device.outbox())[0]!.stamp.deviceId).toBe((await app.device.state()).deviceId);
    await app.device.settle();
    expect(app.server.rows('notes')).toEqual({ a: note('a', 2) });
    expect(app.server.head).toBe(1);
  });
});

describe('hooks of the app', () => {
  test('that_change_what_is_written_change_the_op', async () => {
    app.notes.hook('creating', (_pk, value) => {
      value.made = 'by hook';
    });
    app.notes.hook('updating', (changes) => ({ ...changes, changed: 'by hook' }));
    await app.notes.add(note('a'));
    await app.device.settle();
    expect(app.server.rows('notes')).toEqual({ a: { ...note('a'), made: 'by hook' } });
    await app.notes.update('a', { n: 2 });
    expect(await app.ops()).toEqual([['patch', 'a', { n: 2, changed: 'by hook' }]]);
    expect(await app.notes.get('a')).toEqual({ ...note('a', 2), made: 'by hook', changed: 'by hook' });
  });

  test('that_write_elsewhere_are_captured_in_the_same_transaction', async () => {
    app.notes.hook('deleting', (pk) => {
      void app.files.put({ id: `of ${pk}` });
    });
    await app.notes.add(note('a'));
    await app.device.settle();
    await app.db.transaction('rw', app.notes, app.files, () => app.notes.delete('a'));
    expect((await app.ops()).map(([operation, pk]) => [operation, pk]).sort()).toEqual([['delete', 'a'], ['put', 'of a']]);
  });

  test('are_not_called_for_what_the_server_brings', async () => {
    const called: unknown[] = [];
    app.notes.hook('creating', (pk) => {
      called.push(pk);
    });
    const other = await App.open({ server: app.server });
    await other.notes.add(note('a'));
    await other.device.settle();
    await app.device.pull();
    expect(await app.notes.get('a')).toEqual(note('a'));
    expect(called).toEqual([]);
  });
});

describe('what the server brings', () => {
  test('is_shown_and_is_no_op', async () => {
    const other = await App.open({ server: app.server });
    await other.notes.bulkAdd(many(100));
    await other.device.settle();
    await app.device.pull();
    expect(await app.notes.toArray()).toEqual(many(100));
    expect(await app.ops()).toEqual([]);
    expect(app.captured).toBe(0);
    await other.notes.where('id').above('n010').delete();
    await other.device.settle();
    await app.device.pull();
    expect(await app.notes.toArray()).toEqual(many(11));
    expect(await app.ops()).toEqual([]);
  });

  test('is_told_to_live_queries_and_only_those_of_its_tables', async () => {
    const other = await App.open({ server: app.server });
    const seen: unknown[][] = [];
    let files = 0;
    const arrived = (count: number) => new Promise<void>((resolve) => {
      const subscription = liveQuery(() => app.notes.toArray()).subscribe((rows) => {
        seen.push(rows);
        if (rows.length === count) {
          subscription.unsubscribe();
          resolve();
        }
      });
    });
    const filesQuery = liveQuery(() => app.files.toArray()).subscribe(() => files++);
    const added = arrived(2);
    await other.notes.bulkAdd([note('a'), note('b')]);
    await other.device.settle();
    await app.device.pull();
    await added;
    expect(seen.at(-1)).toEqual([note('a'), note('b')]);
    const removed = arrived(1);
    await other.notes.delete('a');
    await other.device.settle();
    await app.device.pull();
    await removed;
    expect(seen.at(-1)).toEqual([note('b')]);
    expect(files).toBe(1);
    filesQuery.unsubscribe();
  });

  test('does_not_write_rows_that_stay_as_they_are', async () => {
    await app.notes.add(note('a'));
    const written: unknown[] = [];
    const store = IDBObjectStore.prototype;
    const { put } = store;
    store.put = function (value, key) {
      if (this.name === 'notes') written.push(value);
      return key === undefined ? put.call(this, value) : put.call(this, value, key);
    };
    try {
      await app.device.settle();
    } finally {
      store.put = put;
    }
    expect(written).toEqual([]);
    expect(await app.ops()).toEqual([]);
  });

  test('shows_the_edits_of_the_app_over_it', async () => {
    await synced(note('a'));
    const other = await App.open({ server: app.server });
    await other.device.pull();
    await other.notes.update('a', { m: 1 });
    await other.device.settle();
    await app.notes.update('a', { n: 2 });
    await app.device.pull();
    expect(await app.notes.get('a')).toEqual({ id: 'a', n: 2, m: 1 });
    expect(await app.syncedPayload('a')).toEqual({ id: 'a', n: 1, m: 1 });
  });

  test('is_there_when_the_app_reads_in_a_transaction_of_its_own_meanwhile', async () => {
    await synced(note('a'));
    await Promise.all([
      app.db.transaction('rw', app.notes, async () => {
        const read = await app.notes.get('a');
        await app.notes.put({ ...read, n: read.n + 1 });
      }),
      app.store.transaction(async (tx) => {
        const [was] = await tx.known([keyOf('notes', 'a')]);
        await tx.save([{ was: was!, synced: { ...was!.synced!, version: 9, payload: { id: 'a', n: 1, m: 1 } } }]);
      }),
    ]);
    const { n, m } = await app.notes.get('a');
    expect([n, m]).toEqual([2, 1]);
  });
});
