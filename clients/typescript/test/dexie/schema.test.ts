import 'fake-indexeddb/auto';
import Dexie from 'dexie';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { SyncError } from '../../src/error.ts';
import { DexieStore } from '../../src/store/dexie.ts';
import { App, newName } from '../support/app.ts';
import { FakeServer } from '../support/server.ts';

const note = (id: string, n = 1) => ({ id, n });
const capture = { capture: async () => {}, captured: () => {}, blocked: () => {}, closed: () => {} };

beforeEach(() => {
  // Dexie warns of stores that were added without a new version, which is what this does.
  vi.spyOn(console, 'warn').mockImplementation(() => {});
});
afterEach(() => {
  vi.restoreAllMocks();
});

/** A database of the app from before it was synced. */
async function existing(name: string, rows: object[], stores: { [name: string]: string } = { notes: 'id' }): Promise<void> {
  const db = new Dexie(name);
  db.version(1).stores(stores);
  await db.table('notes').bulkAdd(rows);
  db.close();
}

describe('a database that is older than its synchronization', () => {
  const rows = [note('a'), note('b')];

  test('is_synced_without_a_new_version', async () => {
    const name = newName();
    await existing(name, rows);
    const app = await App.open({ name, declare: (db) => db.version(1).stores({ notes: 'id' }), tables: { notes: {} } });
    expect(await app.ops()).toEqual(rows.map((row) => ['put', row.id, row]));
    await app.device.settle();
    expect(app.server.rows('notes')).toEqual({ a: note('a'), b: note('b') });
    expect(await app.notes.toArray()).toEqual(rows);
  });

  test('is_synced_with_a_new_version_that_changes_its_rows', async () => {
    const name = newName();
    await existing(name, rows);
    const app = await App.open({
      name,
      tables: { notes: {} },
      declare: (db) => {
        db.version(1).stores({ notes: 'id' });
        db.version(2).stores({ notes: 'id, n' }).upgrade(async (trans) => {
          await trans.table('notes').toCollection().modify((row) => {
            row.n = 2;
          });
          await trans.table('notes').delete('b');
        });
      },
    });
    expect(await app.ops()).toEqual([['put', 'a', note('a', 2)]]);
    await app.device.settle();
    expect(app.server.rows('notes')).toEqual({ a: note('a', 2) });
  });

  test('that_others_have_synced_before_makes_its_rows_edits_of_theirs', async () => {
    const server = new FakeServer();
    const other = await App.open({ server });
    await other.notes.bulkPut([note('a', 7), note('c', 7)]);
    await other.device.settle();
    const name = newName();
    const declare = (db: Dexie) => {
      db.version(1).stores({ notes: 'id', files: 'id' });
    };
    // It synced another table first, and kept what it did not know.
    const first = await App.open({ name, server, declare, tables: { files: {} } });
    await first.notes.bulkPut([note('a', 1), note('b', 1)]);
    await first.device.settle();
    first.db.close();
    const app = await App.open({ name, server, declare });
    expect(await app.ops()).toEqual([['patch', 'a', { n: 1 }], ['put', 'b', note('b')]]);
    expect(await app.notes.toArray()).toEqual([note('a', 1), note('b', 1), note('c', 7)]);
  });

  test('keeps_rows_with_keys_that_cannot_be_synced_and_leaves_them_alone', async () => {
    const name = newName();
    await existing(name, [{ id: 5 }, note('a'), { id: new Date(0) }]);
    const app = await App.open({ name, declare: (db) => db.version(1).stores({ notes: 'id' }), tables: { notes: {} } });
    expect((await app.ops()).map(([, pk]) => pk)).toEqual(['a']);
    expect(await app.notes.count()).toBe(3);
    // They may go, and mean no other record then.
    await app.notes.put({ id: '5' });
    await app.device.settle();
    await app.notes.delete(5);
    expect(await app.ops()).toEqual([]);
    await app.notes.clear();
    expect(await app.ops()).toEqual([['delete', '5', undefined], ['delete', 'a', undefined]]);
    expect(await app.notes.count()).toBe(0);
  });

  test('tells_of_a_row_that_is_not_json_and_leaves_it_there', async () => {
    const name = newName();
    await existing(name, [{ id: 'a', at: new Date(0) }, note('b')]);
    const app = await App.open({ name, declare: (db) => db.version(1).stores({ notes: 'id' }), tables: { notes: {} } });
    expect((await app.ops()).map(([, pk]) => pk)).toEqual(['b']);
    expect(await app.device.conflicts()).toMatchObject([{ pk: 'a', error: { code: 'INVALID_RECORD' } }]);
    expect(await app.notes.get('a')).toEqual({ id: 'a', at: new Date(0) });
  });
});

describe('a new version of the app', () => {
  const first = (db: Dexie) => {
    db.version(1).stores({ notes: 'id', files: 'id' });
  };

  test('keeps_the_outbox_and_all_else', async () => {
    const name = newName();
    const old = await App.open({ name, declare: first });
    await old.notes.put(note('a'));
    await old.device.settle();
    await old.notes.put(note('a', 2));
    await old.notes.put(note('b'));
    const [state, ops] = [await old.device.state(), await old.device.outbox()];
    old.db.close();
    const app = await App.open({
      name,
      server: old.server,
      declare: (db) => {
        first(db);
        db.version(2).stores({ notes: 'id, n', tags: 'id' });
        db.version(3).stores({ notes: 'id, n, m', files: 'id, name' });
      },
    });
    expect(await app.device.state()).toEqual(state);
    expect(await app.device.outbox()).toEqual(ops);
    expect(await app.notes.where('n').equals(2).toArray()).toEqual([note('a', 2)]);
    await app.device.settle();
    expect(app.server.rows('notes')).toEqual({ a: note('a', 2), b: note('b') });
  });

  test('whose_upgrade_changes_rows_makes_edits_of_them', async () => {
    const name = newName();
    const old = await App.open({ name, declare: first });
    await old.notes.bulkPut([note('a'), note('b')]);
    await old.device.settle();
    old.db.close();
    const app = await App.open({
      name,
      server: old.server,
      declare: (db) => {
        first(db);
        db.version(2).stores({ notes: 'id' }).upgrade((trans) => (
          trans.table('notes').toCollection().modify((row) => {
            row.title = `n${row.n}`;
          })
        ));
      },
    });
    expect(await app.ops()).toEqual([['patch', 'a', { title: 'n1' }], ['patch', 'b', { title: 'n1' }]]);
    expect(await app.syncedPayload('a')).toEqual(note('a'));
  });

  test('that_declares_only_its_latest_version_keeps_the_outbox_too', async () => {
    const name = newName();
    const old = await App.open({ name, declare: first });
    await old.notes.put(note('a'));
    old.db.close();
    const app = await App.open({ name, server: old.server, declare: (db) => db.version(5).stores({ notes: 'id, n', files: 'id' }) });
    expect(await app.ops()).toEqual([['put', 'a', note('a')]]);
  });

  test('that_syncs_one_more_table_shows_what_was_kept_of_it', async () => {
    const name = newName();
    const server = new FakeServer();
    const other = await App.open({ server });
    await other.files.bulkPut(Array.from({ length: 300 }, (_, i) => note(`f${i}`, i)));
    await other.device.settle();
    const old = await App.open({ name, server, declare: (db) => db.version(1).stores({ notes: 'id' }), tables: { notes: {} } });
    await old.device.sync();
    expect((await old.device.known('files', 'f7')).synced!.payload).toEqual(note('f7', 7));
    old.db.close();
    const app = await App.open({
      name,
      server,
      declare: (db) => {
        db.version(1).stores({ notes: 'id' });
        db.version(2).stores({ files: 'id, n' });
      },
    });
    expect(await app.files.where('n').above(297).toArray()).toEqual([note('f298', 298), note('f299', 299)]);
    expect(await app.ops()).toEqual([]);
    await app.files.update('f7', { n: 70 });
    expect(await app.ops()).toEqual([['patch', 'f7', { n: 70 }]]);
  });

  test('that_does_not_sync_a_table_any_more_keeps_its_edits_and_reads_it_anew', async () => {
    const name = newName();
    const old = await App.open({ name, declare: first });
    await old.files.bulkPut([note('a'), note('b')]);
    await old.device.settle();
    await old.files.update('a', { n: 2 });
    old.db.close();
    const app = await App.open({ name, server: old.server, declare: first, tables: { notes: {} } });
    await app.device.settle();
    expect(app.server.rows('files')).toEqual({ a: note('a', 2), b: note('b') });
    expect(await app.syncedPayload('b', 'files')).toEqual(note('b'));
    app.db.close();
    const again = await App.open({ name, server: old.server, declare: first });
    expect(await again.ops()).toEqual([]);
    expect(await again.files.toArray()).toEqual([note('a', 2), note('b')]);
  });
});

describe('a database that cannot be synced is refused:', () => {
  const codeOf = (declare: (db: Dexie) => void, tables = ['notes']) => {
    const db = new Dexie(newName());
    declare(db);
    try {
      new DexieStore(db, new Map(tables.map((name) => [name, {}])), capture);
    } catch (error) {
      expect(error).toBeInstanceOf(SyncError);
      return (error as SyncError).code;
    }
    return undefined;
  };

  test.each<[string, string | undefined, (db: Dexie) => void]>([
    ['a_key_that_the_database_makes', 'INVALID_KEY', (db) => db.version(1).stores({ notes: '++id' })],
    ['a_key_outside_that_the_database_makes', 'INVALID_KEY', (db) => db.version(1).stores({ notes: '++' })],
    ['a_key_of_several_members', 'INVALID_KEY', (db) => db.version(1).stores({ notes: '[a+b]' })],
    ['a_unique_index', 'UNIQUE_INDEX', (db) => db.version(1).stores({ notes: 'id, &slug' })],
    ['a_unique_index_of_the_latest_version', 'UNIQUE_INDEX', (db) => {
      db.version(1).stores({ notes: 'id' });
      db.version(2).stores({ notes: 'id, &slug' });
    }],
    ['a_table_that_is_not_there', 'NO_TABLE', (db) => db.version(1).stores({ files: 'id' })],
    ['a_table_that_a_later_version_dropped', 'NO_TABLE', (db) => {
      db.version(1).stores({ notes: 'id' });
      db.version(2).stores({ notes: null });
    }],
    ['no_version', 'NO_VERSION', () => {}],
    ['indexes_that_are_not_unique_are_no_reason', undefined, (db) => db.version(1).stores({ notes: 'id, n, *tags, [n+m]', other: '++id, &slug' })],
  ])('%s', (_, code, declare) => {
    expect(codeOf(declare)).toBe(code);
  });

  test('one_that_is_open', async () => {
    const db = new Dexie(newName());
    db.version(1).stores({ notes: 'id' });
    await db.open();
    expect(() => new DexieStore(db, new Map([['notes', {}]]), capture)).toThrow(expect.objectContaining({ code: 'TOO_LATE' }));
    db.close();
  });
});
