import 'fake-indexeddb/auto';
import Dexie from 'dexie';
import { afterEach, expect, test } from 'vitest';
import { type Sync, syncTables } from '../src/index.ts';
import { TestDevice } from './support/device.ts';
import { FakeServer } from './support/server.ts';

const running: Sync[] = [];

afterEach(() => {
  for (const sync of running.splice(0)) sync.stop();
});

/** A workspace with a record in each of the scopes a and b, and the way there. */
async function world() {
  const server = new FakeServer();
  server.scopeFields = { todos: 'list' };
  const other = await TestDevice.open(server, undefined, { tables: ['todos'] });
  await other.writeAll(['a', 'b'].map((list) => ['todos', `of ${list}`, { id: `of ${list}`, list }]));
  await other.sync();
  const streams: (string | null)[] = [];
  const way = { isOnline: true, streams };
  const fetch: typeof globalThis.fetch = async (input, init) => {
    if (!way.isOnline) throw new TypeError('offline');
    const url = new URL(String(input), 'http://localhost');
    if (init?.body) return Response.json(await server.call('home', url.pathname.split('/').at(-1)!, JSON.parse(String(init.body))));
    way.streams.push(url.searchParams.get('scopes'));
    return new Response(new ReadableStream());
  };
  return { way, fetch };
}

async function open(name: string, fetch: typeof globalThis.fetch) {
  const db = new Dexie(name);
  db.version(1).stores({ todos: 'id' });
  const sync = syncTables(db, { url: `/${name}`, workspace: 'home', tables: ['todos'], scopes: ['a'], fetch });
  running.push(sync);
  await sync.start();
  const seen = async () => (await db.table('todos').toCollection().primaryKeys()) as string[];
  return { sync, seen };
}

test('the stream follows the list, and another one after it', async () => {
  const { way, fetch } = await world();
  const { sync, seen } = await open('follows', fetch);
  expect(sync.scopes).toEqual({ followed: ['a'], wished: ['a'] });
  await expect.poll(() => way.streams).toEqual(['["a"]']);
  expect(await seen()).toEqual(['of a']);
  const changes: unknown[] = [];
  sync.on('scopes', (scopes) => changes.push(scopes));
  await sync.setScopes(['b']);
  await expect.poll(() => way.streams).toEqual(['["a"]', '["b"]']);
  expect(await seen()).toEqual(['of b']);
  expect(changes).toEqual([{ followed: ['b'], wished: ['b'] }]);
  await expect.poll(() => sync.scopes).toEqual({ followed: ['b'], wished: ['b'] });
  await expect.poll(() => sync.status.value.phase).toBe('live');
});

test('a wish is kept while offline, and over a restart', async () => {
  const { way, fetch } = await world();
  const first = await open('kept', fetch);
  await expect.poll(first.seen).toEqual(['of a']);
  way.isOnline = false;
  await first.sync.setScopes(['b', 'a']);
  expect(first.sync.scopes).toEqual({ followed: ['a'], wished: ['a', 'b'] });
  expect(first.sync.status.value.scopes).toBe(first.sync.scopes);
  first.sync.stop();
  const { sync, seen } = await open('kept', fetch);
  expect(sync.scopes).toEqual({ followed: ['a'], wished: ['a', 'b'] });
  expect(await seen()).toEqual(['of a']);
  way.isOnline = true;
  sync.retry();
  await expect.poll(seen).toEqual(['of a', 'of b']);
  await expect.poll(() => sync.scopes.followed).toEqual(['a', 'b']);
});

test('another tab that leads carries it out, and this one hears of it', async () => {
  const { fetch } = await world();
  const leader = await open('tabs', fetch);
  await expect.poll(leader.seen).toEqual(['of a']);
  const other = await open('tabs', fetch);
  const changes: unknown[] = [];
  other.sync.on('scopes', (scopes) => changes.push(scopes));
  await other.sync.setScopes(null);
  await expect.poll(other.seen).toEqual(['of a', 'of b']);
  await expect.poll(() => other.sync.scopes).toEqual({ followed: null, wished: null });
  await expect.poll(() => leader.sync.scopes).toEqual({ followed: null, wished: null });
  await expect.poll(() => changes).not.toEqual([]);
});
