import 'fake-indexeddb/auto';
import Dexie from 'dexie';
import { afterEach, expect, test } from 'vitest';
import { type Sync, syncTables } from '../src/index.ts';
import type { Op, Payload, PushResult } from '../src/wire.ts';
import { scripted } from './support/scripted.ts';

const running: Sync[] = [];

afterEach(() => {
  for (const sync of running.splice(0)) sync.stop();
});

const theirs = { id: 'a', title: 'theirs', done: true };
const current = {
  kind: 'put' as const,
  serverVersion: 9,
  revision: { clock: 5, hlc: 'h', opId: 'o' },
  payload: theirs,
  fields: {},
};

/** A todo that the server has, edited by the user; pushes of the edits are answered so. */
async function edited(name: string, edits: Payload[], answers: Partial<PushResult>[]) {
  const pushed: Op[] = [];
  const left = [...answers];
  const fetch = scripted((op) => {
    if (op.stamp.clock === 1) return undefined;
    pushed.push(op);
    return left.shift();
  });
  const db = new Dexie(name);
  db.version(1).stores({ todos: 'id' });
  const tables = { todos: { patches: true, conflicts: 'ask' as const } };
  const sync = syncTables(db, { url: '/sync', workspace: 'home', tables, fetch, live: false });
  running.push(sync);
  await sync.start();
  await db.table('todos').put({ id: 'a', title: 'old', done: false });
  await expect.poll(async () => (await sync.pending()).length).toBe(0);
  await db.transaction('rw', 'todos', async () => {
    for (const edit of edits) {
      if (edit.id) await db.table('todos').put(edit);
      else await db.table('todos').update('a', edit);
    }
  });
  await expect.poll(() => left.length).toBe(0);
  await expect.poll(async () => (await sync.pending()).length).toBe(0);
  const [conflict] = await sync.conflicts();
  return { db, sync, pushed, conflict: conflict! };
}

test('a conflict about a field has the rest of the record as the others made it', async () => {
  const { conflict, pushed } = await edited('one', [{ title: 'mine' }], [{ errorCode: 'FIELD_CONFLICT', current }]);
  expect(conflict).toMatchObject({ kind: 'changed', mine: { ...theirs, title: 'mine' }, theirs, fields: ['title'] });
  await conflict.keepMine();
  await expect.poll(() => pushed.length).toBe(2);
  expect(pushed[1]!.payload).toEqual({ title: 'mine' });
});

test('keeping mine leaves alone what others have edited since', async () => {
  const { conflict, pushed, db } = await edited('since', [{ title: 'mine' }], [{ errorCode: 'FIELD_CONFLICT', current }]);
  await db.table('todos').update('a', { done: true });
  await conflict.keepMine();
  await expect.poll(() => pushed.length).toBe(3);
  expect(await db.table('todos').get('a')).toEqual({ id: 'a', title: 'mine', done: true });
});

test('edits that are refused together are one conflict, with what the server told once', async () => {
  const { payload: _, ...told } = current;
  const { conflict } = await edited('two', [{ title: 'mine' }, { title: 'mine again' }, { note: 'x' }], [
    { errorCode: 'FIELD_CONFLICT', current },
    { errorCode: 'FIELD_CONFLICT', current: told },
    { errorCode: 'FIELD_CONFLICT', current: told },
  ]);
  expect(conflict).toMatchObject({
    mine: { ...theirs, title: 'mine again', note: 'x' },
    theirs,
    fields: ['title', 'note'],
  });
});

test('keeping mine brings back what others have deleted', async () => {
  const { kind: _, payload: __, fields: ___, ...rest } = current;
  const { conflict, db } = await edited('gone', [{ title: 'mine' }], [
    { errorCode: 'FIELD_CONFLICT', current: { kind: 'delete', ...rest } },
  ]);
  expect(conflict).toMatchObject({ mine: { id: 'a', title: 'mine', done: false }, theirs: null });
  await db.table('todos').delete('a');
  await conflict.keepMine();
  expect(await db.table('todos').get('a')).toEqual({ id: 'a', title: 'mine', done: false });
});

test('with an edit of the whole record, the conflict is about all of it', async () => {
  const { conflict, pushed } = await edited('whole', [{ id: 'a', title: 'mine' }, { note: 'x' }], [
    { errorCode: 'RECORD_CONFLICT', current },
    { errorCode: 'FIELD_CONFLICT' },
  ]);
  expect(pushed.map(({ operation }) => operation)).toEqual(['put', 'patch']);
  expect(conflict).toMatchObject({ mine: { id: 'a', title: 'mine', note: 'x' }, theirs, fields: undefined });
});

test('two who want the same have no conflict', async () => {
  const { conflict, sync } = await edited('same', [{ title: 'theirs' }, { done: true }], [
    { errorCode: 'FIELD_CONFLICT', current },
    { errorCode: 'FIELD_CONFLICT', current },
  ]);
  expect(conflict).toBeUndefined();
  expect(await sync.conflicts()).toEqual([]);
});
