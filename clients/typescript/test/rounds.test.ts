import 'fake-indexeddb/auto';
import Dexie from 'dexie';
import { expect, test } from 'vitest';
import { syncTables } from '../src/index.ts';
import { scripted } from './support/scripted.ts';

test('what is written without a pause is pushed at most ten times a second', async () => {
  const db = new Dexie('rounds');
  db.version(1).stores({ todos: 'id' });
  const server = scripted();
  const pushes: number[] = [];
  const sync = syncTables(db, {
    url: '/sync',
    workspace: 'home',
    tables: ['todos'],
    live: false,
    fetch: async (input, init) => {
      if (String(input).endsWith('/push')) pushes.push(performance.now());
      return await server(input, init);
    },
  });
  sync.on('pushed', () => {
    if (pushes.length < 4) void db.table('todos').put({ id: String(pushes.length) });
  });
  await sync.start();
  await db.table('todos').put({ id: '0' });
  await expect.poll(() => pushes.length, { timeout: 5000 }).toBe(4);
  sync.stop();
  for (const [i, at] of pushes.slice(1).entries()) expect(at - pushes[i]!).toBeGreaterThan(90);
});
