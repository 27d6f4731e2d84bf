import 'fake-indexeddb/auto';
import type Dexie from 'dexie';
import { describe, expect, test } from 'vitest';
import { SyncError } from '../../src/error.ts';
import { keyOf } from '../../src/store/store.ts';
import type { Payload } from '../../src/wire.ts';
import { App } from '../support/app.ts';

const note = (id: string, n = 1) => ({ id, n });

/** What others have pushed. */
async function theirs(app: App, values: { [pk: string]: Payload | null }, tableName = 'notes'): Promise<void> {
  const other = await App.open({ server: app.server });
  await other.device.pull();
  await other.device.writeAll(Object.entries(values).map(([pk, value]) => [tableName, pk, value]));
  await other.device.settle();
}

const storedSynced = async (app: App, pk: string) => (
  await app.stored('_sync_synced') as { values: { key: string; payload?: Payload }[] }[]
).flatMap(({ values }) => values).find(({ key }) => key === keyOf('notes', pk));

describe('what is synced of a record', () => {
  test('is_its_row_as_long_as_nobody_has_edited_it', async () => {
    const app = await App.open();
    await theirs(app, { a: note('a') });
    await app.device.pull();
    expect(await storedSynced(app, 'a')).not.toHaveProperty('payload');
    expect(await app.syncedPayload('a')).toEqual(note('a'));
  });

  test('is_kept_when_the_first_edit_is_made_and_comes_back_when_that_is_refused', async () => {
    const app = await App.open();
    await theirs(app, { a: note('a') });
    await app.device.pull();
    await app.notes.put(note('a', 99));
    expect((await storedSynced(app, 'a'))!.payload).toEqual(note('a'));
    app.server.refuse = () => ({ errorCode: 'VALIDATION_ERROR', error: 'too large' });
    await app.device.sync();
    expect(await app.notes.get('a')).toEqual(note('a'));
    expect(await app.syncedPayload('a')).toEqual(note('a'));
  });

  test('is_kept_when_the_first_edit_is_a_delete', async () => {
    const app = await App.open();
    await theirs(app, { a: note('a'), b: note('b') });
    await app.device.pull();
    await app.notes.clear();
    expect(await app.syncedPayload('a')).toEqual(note('a'));
    app.server.refuse = () => ({ errorCode: 'REJECTED', error: 'no' });
    await app.device.sync();
    expect(await app.notes.toArray()).toEqual([note('a'), note('b')]);
  });

  test('is_kept_over_many_edits_until_the_last_of_them_is_settled', async () => {
    const app = await App.open();
    await theirs(app, { a: note('a') });
    await app.device.pull();
    await app.notes.update('a', { n: 2 });
    await app.device.push();
    await app.notes.update('a', { n: 3 });
    await app.notes.update('a', { n: 1 });
    expect(await app.syncedPayload('a')).toEqual(note('a'));
    await app.device.settle();
    expect(await app.syncedPayload('a')).toEqual(note('a'));
    expect(await storedSynced(app, 'a')).not.toHaveProperty('payload');
  });

  test('is_forgotten_but_for_its_clock_where_its_row_was_removed_behind_our_back', async () => {
    const app = await App.open();
    await theirs(app, { a: note('a') });
    await app.device.pull();
    const trans = app.db.backendDB().transaction('notes', 'readwrite');
    trans.objectStore('notes').delete('a');
    await new Promise((resolve) => {
      trans.oncomplete = resolve;
    });
    const { synced } = await app.device.known('notes', 'a');
    expect(synced).toEqual({ version: 0, register: null, newest: null, payload: null, clock: 1 });
    await theirs(app, { a: note('a', 2) });
    await app.device.pull();
    expect(await app.notes.get('a')).toEqual(note('a', 2));
  });

  test('of_many_records_is_read_as_of_one', async () => {
    const app = await App.open();
    const all = Object.fromEntries(Array.from({ length: 120 }, (_, i) => [`n${i}`, note(`n${i}`, i)]));
    await theirs(app, all);
    await app.device.pull();
    const keys = Object.keys(all).map((pk) => keyOf('notes', pk));
    for (const some of [keys, keys.filter((_, i) => i % 3 === 0), keys.slice(0, 3)]) {
      const known = await app.store.read((tx) => tx.known([...some, keyOf('notes', 'never')]));
      expect(known.map(({ synced }) => synced?.payload)).toEqual([...some.map((key) => all[key.slice(6)]), undefined]);
    }
  });
});

describe('a row', () => {
  test('is_what_json_makes_of_it_so_that_writing_it_again_is_no_edit', async () => {
    const app = await App.open();
    const row = { ...note('a'), m: undefined, deep: { k: undefined, l: 1 } };
    await app.notes.put(row);
    expect(Object.keys(await app.notes.get('a'))).toEqual(['id', 'n', 'deep']);
    await app.device.settle();
    await app.notes.put(row);
    expect(await app.ops()).toEqual([]);
    await app.notes.put({ ...row, n: 2 });
    expect(await app.ops()).toEqual([['patch', 'a', { n: 2 }]]);
  });

  test('has_its_key_inside_also_if_the_payload_of_others_has_none_or_a_number', async () => {
    const app = await App.open();
    await theirs(app, { a: { n: 1 }, 5: { id: 5, n: 1 } });
    await app.device.pull();
    expect(await app.notes.toArray()).toEqual([{ id: '5', n: 1 }, { id: 'a', n: 1 }]);
    expect(await app.syncedPayload('a')).toEqual({ n: 1 });
    await app.notes.update('a', { n: 2 });
    await app.notes.update('5', { n: 2 });
    expect(await app.ops()).toEqual([['patch', 'a', { n: 2 }], ['patch', '5', { n: 2 }]]);
    await app.device.settle();
    expect(app.server.rows('notes')).toEqual({ a: { n: 2 }, 5: { id: 5, n: 2 } });
    expect(await app.notes.toArray()).toEqual([{ id: '5', n: 2 }, { id: 'a', n: 2 }]);
  });

  test('may_have_its_key_in_a_member', async () => {
    const app = await App.open({ declare: (db) => db.version(1).stores({ notes: 'meta.id' }), tables: { notes: {} } });
    await app.notes.put({ meta: { id: 'a' }, n: 1 });
    await app.device.settle();
    expect(app.server.rows('notes')).toEqual({ a: { meta: { id: 'a' }, n: 1 } });
    const other = await App.open({ server: app.server });
    await other.device.pull();
    await other.device.write('notes', 'b', { n: 1 });
    await other.device.settle();
    await app.device.pull();
    expect(await app.notes.toArray()).toEqual([{ meta: { id: 'a' }, n: 1 }, { meta: { id: 'b' }, n: 1 }]);
  });

  test('of_a_table_with_keys_outside_has_only_its_members', async () => {
    const app = await App.open({ declare: (db) => db.version(1).stores({ notes: ',n', files: 'id' }) });
    await app.notes.put({ n: 1 }, 'a');
    await app.notes.bulkPut([{ n: 2 }, { n: 3 }], ['b', 'c']);
    await app.notes.where('n').equals(3).modify({ n: 4 });
    await app.notes.delete('b');
    expect(await app.ops()).toEqual([['put', 'a', { n: 1 }], ['put', 'c', { n: 4 }]]);
    await app.device.settle();
    await theirs(app, { d: { n: 5 }, a: { n: 9 } });
    await app.device.pull();
    expect(await app.notes.toArray()).toEqual([{ n: 9 }, { n: 4 }, { n: 5 }]);
    expect(await app.notes.get('d')).toEqual({ n: 5 });
    await app.notes.put({ n: 10 }, 'a');
    expect(await app.ops()).toEqual([['patch', 'a', { n: 10 }]]);
    expect(await app.syncedPayload('a')).toEqual({ n: 9 });
  });

  test('may_have_members_that_each_object_has', async () => {
    const app = await App.open();
    await app.notes.put(JSON.parse('{"id": "a", "__proto__": 1, "constructor": 1}'));
    await app.device.settle();
    // Not by update: Dexie would take __proto__ away.
    await app.notes.put(JSON.parse('{"id": "a", "__proto__": 1, "constructor": 2}'));
    expect((await app.ops())[0]![2]).toEqual({ constructor: 2 });
    await app.device.settle();
    expect(JSON.stringify(app.server.rows('notes').a)).toBe('{"id":"a","__proto__":1,"constructor":2}');
    expect(await app.ops()).toEqual([]);
  });
});

describe('fields that this version of the app does not know', () => {
  const tables = { notes: { fields: ['id', 'n', 'm'] }, files: {} };

  test('are_not_shown_and_are_kept_by_every_way_of_writing', async () => {
    const app = await App.open({ tables, rules: { patches: false, conflicts: 'merge' } });
    await theirs(app, { a: { ...note('a'), color: 'red' }, b: { ...note('b'), color: 'blue' } });
    await app.device.pull();
    expect(await app.notes.toArray()).toEqual([note('a'), note('b')]);
    await app.notes.put({ ...note('a', 2), m: 1 });
    await app.notes.update('b', { n: 2 });
    expect(await app.ops()).toEqual([['put', 'a', { color: 'red', id: 'a', n: 2, m: 1 }], ['put', 'b', { color: 'blue', id: 'b', n: 2 }]]);
    await app.device.settle();
    expect(await app.notes.toArray()).toEqual([{ ...note('a', 2), m: 1 }, note('b', 2)]);
    expect(app.server.rows('notes').a).toEqual({ ...note('a', 2), m: 1, color: 'red' });
    await app.notes.put(note('a', 2));
    expect(await app.ops()).toEqual([['put', 'a', { color: 'red', id: 'a', n: 2 }]]);
  });

  test('of_a_record_that_is_shown_again_are_no_edit', async () => {
    const app = await App.open({ tables });
    await theirs(app, { a: { ...note('a'), color: 'red' } });
    await app.device.pull();
    await app.notes.put(note('a'));
    expect(await app.ops()).toEqual([]);
    await app.notes.put(note('a', 2));
    expect(await app.ops()).toEqual([['patch', 'a', { n: 2 }]]);
  });

  test('of_a_record_that_was_deleted_do_not_come_back', async () => {
    const app = await App.open({ tables });
    await theirs(app, { a: { ...note('a'), color: 'red' } });
    await app.device.pull();
    await app.notes.delete('a');
    await app.device.settle();
    await app.notes.put(note('a', 2));
    expect(await app.ops()).toEqual([['put', 'a', note('a', 2)]]);
  });

  test('are_shown_once_the_app_knows_them', async () => {
    const app = await App.open({ tables });
    await theirs(app, { a: { ...note('a'), color: 'red' }, b: note('b') });
    await app.device.pull();
    app.db.close();
    const newer = await App.open({ name: app.store.name, server: app.server, tables: { notes: { fields: ['id', 'n', 'color'] }, files: {} } });
    expect(await newer.notes.toArray()).toEqual([{ ...note('a'), color: 'red' }, note('b')]);
    newer.db.close();
    const newest = await App.open({ name: app.store.name, server: app.server });
    expect(await newest.ops()).toEqual([]);
    expect((await newest.device.state()).snapshot).toBeNull();
    newest.db.close();
    const older = await App.open({ name: app.store.name, server: app.server, tables });
    expect(await older.notes.toArray()).toEqual([note('a'), note('b')]);
    expect(await older.ops()).toEqual([]);
  });

  test('and_that_a_newer_one_knows_are_kept_if_it_writes_rows_that_do_not_show_them_yet', async () => {
    const app = await App.open({ tables });
    await theirs(app, { a: { ...note('a'), color: 'red' }, b: { ...note('b'), color: 'blue' } });
    await app.device.pull();
    app.db.close();
    const newer = new App({ name: app.store.name, server: app.server });
    await newer.notes.update('a', { n: 2 });
    await newer.notes.update('b', { n: 2, color: 'green' });
    await newer.device.device.open();
    expect(await newer.ops()).toEqual([['patch', 'a', { n: 2 }], ['patch', 'b', { n: 2, color: 'green' }]]);
    expect(await newer.notes.toArray()).toEqual([{ ...note('a', 2), color: 'red' }, { ...note('b', 2), color: 'green' }]);
    await newer.notes.update('a', { color: undefined });
    expect((await newer.ops())[0]).toEqual(['put', 'a', note('a', 2)]);
  });

  test('with_an_edit_of_a_known_one_do_not_leave_the_row_as_what_is_synced', async () => {
    const app = await App.open({ tables });
    await theirs(app, { a: { ...note('a'), color: 'red' } });
    await app.device.pull();
    await app.notes.update('a', { n: 2 });
    await app.device.settle();
    expect(await app.syncedPayload('a')).toEqual({ ...note('a', 2), color: 'red' });
  });
});

describe('what cannot be synced is refused and nothing is lost:', () => {
  const refusals: [string, (app: App) => PromiseLike<unknown>, string][] = [
    ['a_number_as_a_key', ({ notes }) => notes.put({ id: 5 }), 'INVALID_KEY'],
    ['a_date_as_a_key', ({ notes }) => notes.put({ id: new Date(0) }), 'INVALID_KEY'],
    ['a_list_as_a_key', ({ notes }) => notes.put({ id: ['a'] }), 'INVALID_KEY'],
    ['an_empty_key', ({ notes }) => notes.put({ id: '' }), 'INVALID_KEY'],
    ['a_key_with_nul', ({ notes }) => notes.put({ id: 'a\0b' }), 'INVALID_KEY'],
    ['half_a_character_as_a_key', ({ notes }) => notes.put({ id: '\ud800' }), 'INVALID_KEY'],
    ['a_key_of_1025_bytes', ({ notes }) => notes.put({ id: 'a'.repeat(1025) }), 'INVALID_KEY'],
    ['a_key_of_1026_bytes_in_few_characters', ({ notes }) => notes.put({ id: 'ä€'.repeat(205) + 'a' }), 'INVALID_KEY'],
    ['a_date', ({ notes }) => notes.put({ id: 'b', at: new Date() }), 'INVALID_RECORD'],
    ['a_blob', ({ notes }) => notes.put({ id: 'b', blob: new Blob(['x']) }), 'INVALID_RECORD'],
    ['a_map_in_an_update', ({ notes }) => notes.update('a', { m: new Map() }), 'INVALID_RECORD'],
    ['nan_in_modify', ({ notes }) => notes.toCollection().modify({ n: NaN }), 'INVALID_RECORD'],
    ['one_bad_row_of_many', ({ notes }) => notes.bulkPut([note('b'), { id: 'c', n: 1n }]), 'INVALID_RECORD'],
    ['a_bad_key_of_many', ({ notes }) => notes.bulkAdd([note('b'), { id: 7, n: 1 }]), 'INVALID_KEY'],
  ];

  test.each(refusals)('%s', async (_, write, code) => {
    const app = await App.open();
    await app.notes.put(note('a'));
    const error = await app.db.transaction('rw', app.notes, async () => {
      await write(app);
    }).then(() => undefined, (error: unknown) => error);
    expect(codeOf(error)).toBe(code);
    expect(await app.notes.toArray()).toEqual([note('a')]);
    expect(await app.ops()).toEqual([['put', 'a', note('a')]]);
  });

  test('with_the_record_and_the_path_in_the_message', async () => {
    const app = await App.open();
    await expect(app.notes.put({ id: 'b', list: [{ at: new Date() }] })).rejects.toThrow('the record b of notes cannot be synced: list[0].at is not JSON: Date');
  });

  test('a_key_of_1024_bytes_is_not', async () => {
    const app = await App.open();
    for (const id of ['a'.repeat(1024), 'ä'.repeat(512), '\u{1f600}'.repeat(256)]) await app.notes.put({ id });
    expect(await app.ops()).toHaveLength(3);
  });

  test('a_transaction_may_go_on_after_it', async () => {
    const app = await App.open();
    await app.db.transaction('rw', app.notes, async () => {
      await app.notes.put(note('a'));
      await app.notes.put({ id: 'b', at: new Date() }).catch(() => {});
      await app.notes.put(note('c'));
    });
    expect((await app.ops()).map(([, pk]) => pk)).toEqual(['a', 'c']);
    expect((await app.notes.toArray()).map(({ id }) => id)).toEqual(['a', 'c']);
  });
});

/** Dexie wraps the errors of modify and of many. */
function codeOf(error: unknown): string | undefined {
  if (error instanceof SyncError) return error.code;
  const { failures, inner } = error as { failures?: unknown[]; inner?: unknown };
  return failures?.length ? codeOf(failures[0]) : inner ? codeOf(inner) : undefined;
}

test('the_type_of_the_database_is_not_part_of_its_name', () => {
  const db: Dexie = new App({ name: 'of the app' }).db;
  expect(db.name).toBe('of the app');
});
