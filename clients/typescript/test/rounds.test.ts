import 'fake-indexeddb/auto';
import Dexie from 'dexie';
import { expect, onTestFinished, test, vi } from 'vitest';
import { PATIENCE } from '../../support/patience.ts';
import { syncTables } from '../src/index.ts';
import { scripted } from './support/scripted.ts';

async function start(name: string, fetch = scripted()) {
  const db = new Dexie(name);
  db.version(1).stores({ todos: 'id' });
  const sync = syncTables(db, { url: '/sync', workspace: 'home', tables: ['todos'], live: false, fetch });
  await sync.start();
  onTestFinished(() => sync.stop());
  return { todos: db.table('todos'), sync };
}

test('what is written without a pause is pushed ten times a second at most', async () => {
  vi.useFakeTimers({ toFake: ['Date', 'performance', 'setTimeout', 'clearTimeout'] });
  onTestFinished(() => void vi.useRealTimers());
  const { todos, sync } = await start('rounds');
  const begun: number[] = [];
  sync.on('run', ({ at }) => begun.push(at));
  sync.on('pushed', ({ ops }) => void todos.put({ id: `${ops[0]!.pk}+` }));
  await todos.put({ id: 'a' });
  await vi.waitUntil(async () => {
    await vi.advanceTimersByTimeAsync(1);
    return begun.length === 4;
  }, { interval: 1, timeout: PATIENCE });
  for (const [i, at] of begun.slice(1).entries()) expect(at - begun[i]!).toBeGreaterThanOrEqual(100);
});

test('a clock that is set back does not delay pushes', async () => {
  const { todos, sync } = await start('set_back');
  const pushed: string[] = [];
  sync.on('pushed', ({ ops }) => pushed.push(...ops.map(({ pk }) => pk)));
  const { now } = Date;
  sync.on('push', ({ ops }) => {
    if (ops[0]!.pk === 'a') Date.now = () => now() - 86_400_000;
  });
  onTestFinished(() => {
    Date.now = now;
  });
  await todos.put({ id: 'a' });
  await expect.poll(() => pushed).toEqual(['a']);
  await todos.put({ id: 'b' });
  await expect.poll(() => pushed).toEqual(['a', 'b']);
});

test('a workspace that moves to another server is waited for as long as it takes', async () => {
  vi.useFakeTimers({ toFake: ['Date', 'performance', 'setTimeout', 'clearTimeout'] });
  onTestFinished(() => void vi.useRealTimers());
  const error = { code: 'SX004', message: 'workspace is elsewhere', detail: null, hint: null };
  const server = scripted();
  const pushes: string[] = [];
  let moving = false;
  const { todos, sync } = await start('moving', async (input, init) => {
    if (String(input).endsWith('/push')) pushes.push(String(init!.body));
    return moving ? Response.json({ error }, { status: 503, headers: { 'retry-after': '1' } }) : server(input, init);
  });
  const waits: number[] = [];
  const phases: string[] = [];
  sync.on('retry', ({ wait }) => {
    waits.push(wait);
    phases.push(sync.status.value.phase);
  });
  const until = (isSo: () => unknown) => vi.waitUntil(async () => {
    await vi.advanceTimersByTimeAsync(50);
    return isSo();
  }, { interval: 1, timeout: PATIENCE });
  moving = true;
  await todos.put({ id: 'a' });
  await until(() => waits.length === 9);
  expect(new Set(phases)).toEqual(new Set(['waiting']));
  expect(sync.status.value).toMatchObject({ error: { code: 'SX004' }, online: true, pending: 1 });
  for (const wait of waits) expect(wait).toBeGreaterThanOrEqual(1000);
  moving = false;
  await until(() => sync.status.value.pending === 0);
  // The same op each time, and it was stored.
  expect(new Set(pushes).size).toBe(1);
  expect(await todos.toArray()).toEqual([{ id: 'a' }]);
  expect(await sync.conflicts()).toEqual([]);
});
