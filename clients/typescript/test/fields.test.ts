import 'fake-indexeddb/auto';
import Dexie from 'dexie';
import { expect, test } from 'vitest';
import { syncTables } from '../src/index.ts';
import { scripted } from './support/scripted.ts';

const page = { nextCursor: 1, hasMore: false, serverVersion: 1, proof: 'p', requiresSnapshot: false };
const stamp = { clock: 1, hlc: 'h', opId: 'f0000000-0000-4000-8000-000000000000', deviceId: 'other' };
const payload = { id: 'a', title: 'x', due: 'today' };

/** The app in a version that knows some fields. */
function open(fields?: string[]) {
  const server = scripted();
  const db = new Dexie('fields');
  db.version(1).stores({ todos: 'id' });
  const sync = syncTables(db, {
    url: '/sync',
    workspace: 'home',
    tables: { todos: { ...(fields && { fields }) } },
    live: false,
    fetch: async (input, init) => {
      if (!String(input).endsWith('/pull') || JSON.parse(String(init!.body)).cursor > 0) return await server(input, init);
      const change = { serverVersion: 1, tableName: 'todos', pk: 'a', op: 'put', applied: true, payload, stamp };
      return Response.json({ ...page, changes: [change] });
    },
  });
  const close = () => {
    sync.stop();
    db.close();
  };
  return { todos: db.table('todos'), sync, close };
}

test('the fields that a new version of the app knows are shown, and kept before', async () => {
  const old = open(['id', 'title']);
  await old.sync.start();
  await expect.poll(() => old.todos.get('a')).toEqual({ id: 'a', title: 'x' });
  old.close();

  const app = open();
  await app.todos.update('a', { title: 'y' });
  await app.sync.start();
  expect(await app.todos.get('a')).toEqual({ id: 'a', title: 'y', due: 'today' });
  app.close();
});
