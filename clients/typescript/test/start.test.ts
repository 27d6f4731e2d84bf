import 'fake-indexeddb/auto';
import Dexie from 'dexie';
import { expect, test } from 'vitest';
import { syncTables } from '../src/index.ts';
import { scripted } from './support/scripted.ts';

test('a sync can be stopped, and started again, while it starts', async () => {
  const db = new Dexie('start');
  db.version(1).stores({ todos: 'id' });
  const sync = syncTables(db, { url: '/sync', workspace: 'home', tables: ['todos'], fetch: scripted(), live: false });
  const first = sync.start();
  sync.stop();
  await first;
  expect(sync.status.value.phase).toBe('stopped');
  const second = sync.start();
  sync.stop();
  await Promise.all([second, sync.start()]);
  await db.table('todos').put({ id: 'a' });
  await expect.poll(() => sync.status.value).toMatchObject({ isLeader: true, phase: 'polling', pending: 0 });
  sync.stop();
});
