import 'fake-indexeddb/auto';
import Dexie from 'dexie';
import { expect, onTestFinished, test, vi } from 'vitest';
import { syncTables } from '../src/index.ts';
import { scripted } from './support/scripted.ts';

async function start(name: string) {
  const db = new Dexie(name);
  db.version(1).stores({ todos: 'id' });
  const sync = syncTables(db, { url: '/sync', workspace: 'home', tables: ['todos'], live: false, fetch: scripted() });
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
  }, { interval: 1, timeout: 5000 });
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
