import 'fake-indexeddb/auto';
import Dexie from 'dexie';
import { afterEach, expect, test, vi } from 'vitest';
import { PATIENCE } from '../../support/patience.ts';
import { syncTables } from '../src/index.ts';
import { scripted } from './support/scripted.ts';

afterEach(() => {
  vi.useRealTimers();
});

test('what is due comes although the clock is set back by a day', async () => {
  vi.useFakeTimers({ toFake: ['Date', 'performance', 'setTimeout', 'clearTimeout'] });
  const server = scripted();
  const acknowledged: number[] = [];
  const db = new Dexie('clock');
  db.version(1).stores({ todos: 'id' });
  const sync = syncTables(db, {
    url: '/sync',
    workspace: 'home',
    tables: ['todos'],
    live: false,
    fetch: async (input, init) => {
      if (String(input).endsWith('/cursor')) acknowledged.push(JSON.parse(String(init!.body)).version);
      return await server(input, init);
    },
  });
  const after = async (time: number, condition: () => boolean) => {
    await vi.advanceTimersByTimeAsync(time);
    await vi.waitUntil(condition, { interval: 1, timeout: PATIENCE });
  };
  await sync.start();
  await after(200, () => sync.status.value.phase === 'polling');
  await db.table('todos').put({ id: 'a' });
  await after(200, () => sync.status.value.pending === 0);
  vi.setSystemTime(Date.now() - 86_400_000);
  await after(31_000, () => acknowledged.length > 0);
  expect(acknowledged).toEqual([1]);
  sync.stop();
});

test('a round follows the one in which the clock was set back', async () => {
  vi.useFakeTimers({ toFake: ['Date', 'performance', 'setTimeout', 'clearTimeout'] });
  const server = scripted();
  const db = new Dexie('round');
  db.version(1).stores({ todos: 'id' });
  const sync = syncTables(db, {
    url: '/sync',
    workspace: 'home',
    tables: ['todos'],
    live: false,
    fetch: async (input, init) => {
      vi.setSystemTime(Date.now() - 86_400_000);
      return await server(input, init);
    },
  });
  await sync.start();
  for (const id of ['a', 'b', 'c']) {
    await db.table('todos').put({ id });
    await vi.advanceTimersByTimeAsync(2000);
    await vi.waitUntil(async () => (await sync.pending()).length === 0, { interval: 1, timeout: PATIENCE });
  }
  sync.stop();
});
