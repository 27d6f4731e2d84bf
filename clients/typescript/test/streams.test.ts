import 'fake-indexeddb/auto';
import Dexie from 'dexie';
import { afterEach, expect, test, vi } from 'vitest';
import { PATIENCE } from '../../support/patience.ts';
import { type Sync, syncTables } from '../src/index.ts';
import { liveOf } from '../src/live.ts';
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

/** A sync whose calls and streams fail or not, in a time that passes only where a test lets it. */
async function failing(name: string) {
  vi.useFakeTimers({ toFake: ['performance', 'setTimeout', 'clearTimeout'] });
  const db = new Dexie(name);
  db.version(1).stores({ todos: 'id' });
  const server = scripted();
  const way = { calls: true, streams: false, tries: 0 };
  const fetch: typeof globalThis.fetch = async (input, init) => {
    if (!init?.body) way.tries++;
    if (!(init?.body ? way.calls : way.streams)) throw new TypeError('offline');
    return init?.body ? await server(input, init) : new Response(new ReadableStream());
  };
  const options = { url: `/${name}`, fetch };
  const sync = syncTables(db, { ...options, workspace: 'home', tables: ['todos'] });
  running.push(sync);
  const waits: number[] = [];
  sync.on('retry', ({ wait }) => waits.push(wait));
  const until = (isSo: () => unknown) => vi.waitUntil(async () => {
    await vi.advanceTimersByTimeAsync(20);
    return isSo();
  }, { interval: 1, timeout: PATIENCE });
  await sync.start();
  await until(() => way.tries === 3);
  return { todos: db.table('todos'), sync, way, live: liveOf(options), waits, until };
}

test('when a stream connects, calls that wait for another try make it', async () => {
  const { todos, sync, way, live, waits, until } = await failing('calls');
  way.calls = false;
  await todos.put({ id: 'a' });
  await until(() => waits.at(-1)! > 2000);
  way.calls = way.streams = true;
  live.retry();
  await expect.poll(() => sync.status.value.phase).toBe('live');
  await vi.advanceTimersByTimeAsync(100);
  await expect.poll(async () => (await sync.pending()).length).toBe(0);
});

test('when a call is answered again, a stream that waits for another try makes it', async () => {
  const { todos, sync, way, waits, until } = await failing('streams');
  way.calls = false;
  await todos.put({ id: 'a' });
  await until(() => waits.length === 1);
  way.calls = way.streams = true;
  // Less than the stream waits.
  await vi.advanceTimersByTimeAsync(350);
  await expect.poll(() => sync.status.value.phase).toBe('live');
});
