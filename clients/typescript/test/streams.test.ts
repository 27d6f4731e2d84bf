import 'fake-indexeddb/auto';
import Dexie from 'dexie';
import { afterEach, expect, test, vi } from 'vitest';
import { PATIENCE } from '../../support/patience.ts';
import { type Sync, syncTables } from '../src/index.ts';
import { scripted } from './support/scripted.ts';

const running: Sync[] = [];

afterEach(() => {
  for (const sync of running.splice(0)) sync.stop();
  vi.useRealTimers();
});

test('stores with a fetch of their own have a stream of their own', async () => {
  const streams: string[] = [];
  for (const name of ['ann', 'bob']) {
    const db = new Dexie(name);
    db.version(1).stores({ todos: 'id' });
    const server = scripted();
    const fetch: typeof globalThis.fetch = async (input, init) => {
      if (init?.body) return await server(input, init);
      streams.push(name);
      return new Response(new ReadableStream());
    };
    const sync = syncTables(db, { url: '/own', workspace: 'home', tables: ['todos'], fetch });
    running.push(sync);
    await sync.start();
  }
  await expect.poll(() => streams).toEqual(['ann', 'bob']);
});

test('a stream that waits for another try makes it when the app wants to go on', async () => {
  const db = new Dexie('patient');
  db.version(1).stores({ todos: 'id' });
  const server = scripted();
  let isOnline = false;
  let tries = 0;
  const fetch: typeof globalThis.fetch = async (input, init) => {
    if (init?.body) return await server(input, init);
    tries++;
    if (!isOnline) throw new TypeError('offline');
    return new Response(new ReadableStream());
  };
  const sync = syncTables(db, { url: '/patient', workspace: 'home', tables: ['todos'], fetch });
  running.push(sync);
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  await sync.start();
  await vi.waitUntil(() => tries === 3, { interval: 10, timeout: PATIENCE });
  // From now on no time passes.
  isOnline = true;
  sync.retry();
  await expect.poll(() => sync.status.value.phase).toBe('live');
});
