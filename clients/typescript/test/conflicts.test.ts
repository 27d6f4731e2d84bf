import 'fake-indexeddb/auto';
import Dexie from 'dexie';
import { afterEach, expect, test } from 'vitest';
import { type OpenConflict, type Sync, syncTables } from '../src/index.ts';
import { scripted } from './support/scripted.ts';

const running: Sync[] = [];

afterEach(() => {
  for (const sync of running.splice(0)) sync.stop();
});

/** A tab with a database of its todos. */
async function tab(name: string, fetch: typeof globalThis.fetch) {
  const db = new Dexie(name);
  db.version(1).stores({ todos: 'id' });
  const sync = syncTables(db, { url: '/sync', workspace: 'home', tables: ['todos'], fetch, live: false });
  const seen: OpenConflict[][] = [];
  sync.openConflicts.subscribe((conflicts) => seen.push(conflicts));
  await sync.start();
  running.push(sync);
  return { db, sync, seen };
}

const rejecting = () => scripted(({ payload }) => (
  payload?.title === 'bad' ? { errorCode: 'REJECTED', error: 'not that' } : undefined
));

test('open conflicts are told when they come, change and are resolved', async () => {
  const { db, sync, seen } = await tab('one', rejecting());
  await db.table('todos').put({ id: 'a', title: 'bad' });
  await expect.poll(() => sync.openConflicts.value.map(({ pk }) => pk)).toEqual(['a']);
  expect(sync.status.value).toMatchObject({ conflicts: 1, failed: 1 });
  await db.table('todos').put({ id: 'b', title: 'bad' });
  await expect.poll(() => sync.openConflicts.value.map(({ pk }) => pk)).toEqual(['a', 'b']);
  await sync.openConflicts.value[0]!.merge({ id: 'a', title: 'good' });
  await expect.poll(() => sync.openConflicts.value.map(({ pk }) => pk)).toEqual(['b']);
  const told = seen.length;
  await db.table('todos').put({ id: 'c', title: 'good' });
  await expect.poll(() => sync.status.value.pending).toBe(0);
  expect(seen.length).toBe(told);
});

test('a tab shows what comes and is resolved in another one', async () => {
  const fetch = rejecting();
  const [one, two] = [await tab('tabs', fetch), await tab('tabs', fetch)];
  await one.db.table('todos').put({ id: 'a', title: 'bad' });
  await expect.poll(() => one.sync.openConflicts.value.length).toBe(1);
  await expect.poll(() => two.sync.openConflicts.value.length).toBe(1);
  await two.sync.openConflicts.value[0]!.keepTheirs();
  await expect.poll(() => one.sync.openConflicts.value.length).toBe(0);
  await expect.poll(() => two.sync.openConflicts.value.length).toBe(0);
});

test('other tabs are told of an edit that is discarded', async () => {
  const { db, sync } = await tab('discard', () => new Promise(() => {}));
  await db.table('todos').put({ id: 'a', title: 'x' });
  await expect.poll(() => sync.status.value.pending).toBe(1);
  const other = new BroadcastChannel('sync_ext:discard');
  const types: string[] = [];
  other.onmessage = ({ data }) => types.push(data.type);
  const [op] = await sync.pending();
  await sync.discard(op!);
  await expect.poll(() => types).toContain('captured');
  other.close();
});

test('what a restored server has lost is told at once', async () => {
  let server = scripted();
  let lost: Record<string, object> = {};
  let isCounted = () => {};
  const counted = new Promise<void>((resolve) => {
    isCounted = resolve;
  });
  const { db, sync } = await tab('restored', async (input, init) => {
    if (String(input).endsWith('/push')) await counted;
    const [, name] = /(pull|snapshot)$/.exec(String(input)) ?? [];
    const reply = name && lost[name];
    if (!reply) return await server(input, init);
    delete lost[name];
    return Response.json(reply);
  });
  await db.table('todos').put({ id: 'a', title: 'kept here' });
  await expect.poll(() => sync.status.value.pending).toBe(1);
  isCounted();
  await expect.poll(() => sync.status.value.pending).toBe(0);
  const page = { changes: [], nextCursor: 0, hasMore: false, serverVersion: 0, proof: null };
  lost = {
    pull: { ...page, requiresSnapshot: true, reason: 'history_diverged' },
    snapshot: { items: [], highWatermark: 0, nextPageToken: null, proof: null },
  };
  server = scripted();
  sync.retry();
  await expect.poll(() => sync.openConflicts.value.map(({ kind, mine }) => ({ kind, mine })))
    .toEqual([{ kind: 'restored', mine: { id: 'a', title: 'kept here' } }]);
});
