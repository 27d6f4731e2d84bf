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

test('a call that ends after a stop does not end what was started since', async () => {
  const db = new Dexie('late');
  db.version(1).stores({ todos: 'id' });
  const answer = scripted();
  let release = () => {};
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  let called = () => {};
  const first = new Promise<void>((resolve) => {
    called = resolve;
  });
  const fetch: typeof answer = async (...request) => {
    called();
    await released;
    return await answer(...request);
  };
  const sync = syncTables(db, { url: '/sync', workspace: 'home', tables: ['todos'], fetch, live: false });
  await sync.start();
  await first;
  sync.stop();
  await sync.start();
  release();
  await expect.poll(() => sync.status.value.phase).toBe('polling');
  expect(sync.status.value.isLeader).toBe(true);
  sync.stop();
});
