import 'fake-indexeddb/auto';
import Dexie from 'dexie';
import { expect, test } from 'vitest';
import { syncTables } from '../src/index.ts';
import { scripted } from './support/scripted.ts';

test('what is written without a pause is pushed ten times a second at most', async () => {
  const db = new Dexie('rounds');
  db.version(1).stores({ todos: 'id' });
  const sync = syncTables(db, {
    url: '/sync',
    workspace: 'home',
    tables: ['todos'],
    live: false,
    fetch: scripted(),
  });
  const begun: number[] = [];
  sync.on('run', ({ at, pushed }) => begun.push(at) && expect(pushed).toBe(1));
  sync.on('pushed', ({ ops }) => void db.table('todos').put({ id: `${ops[0]!.pk}+` }));
  await sync.start();
  await db.table('todos').put({ id: 'a' });
  await expect.poll(() => begun.length, { timeout: 5000 }).toBe(4);
  sync.stop();
  // Of the clock, which counts whole milliseconds.
  for (const [i, at] of begun.slice(1).entries()) expect(at - begun[i]!).toBeGreaterThanOrEqual(99);
});
