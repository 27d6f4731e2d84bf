import { expect, test } from 'vitest';
import { MemoryStore } from '../../src/store/memory.ts';
import { TestDevice, failure } from '../support/device.ts';
import { FakeServer, deferred } from '../support/server.ts';

/** Two tabs of one store that both talk to the server, as they do without Web Locks. */
async function twoTabs(options = {}) {
  const server = new FakeServer();
  const store = new MemoryStore();
  const [one, two] = [await TestDevice.open(server, store, options), await TestDevice.open(server, store, options)];
  const other = await TestDevice.open(server);
  return { server, one, two, other };
}

/** The next call of that name reaches the server when it is let go. */
function late(server: FakeServer, name: string): { begun: Promise<void>; go: () => void } {
  const [begun, gone] = [deferred(), deferred()];
  server.next(name, async (answer) => {
    begun.resolve();
    await gone.promise;
    return answer();
  });
  return { begun: begun.promise, go: gone.resolve };
}

test('a page that another tab has passed does not set the cursor back', async () => {
  const { server, one, two, other } = await twoTabs();
  await other.write('notes', 'a', { n: 1 });
  await other.push();
  const request = late(server, 'pull');
  const first = one.pull();
  await request.begun;
  const reply = server.hold('pull');
  const second = failure(two.pull());
  await reply.arrived;
  await other.write('notes', 'b', { n: 1 });
  await other.push();
  request.go();
  await first;
  reply.release();
  expect((await second).code).toBe('LATE');
  expect((await one.state()).cursor).toBe(2);
});

test('pages of two snapshots are not mixed', async () => {
  const { server, one, two, other } = await twoTabs({ pageLimit: 2 });
  for (const pk of ['a', 'c', 'd']) await other.write('notes', pk, { n: 1 });
  await other.push();
  await one.pull();
  server.restore(0);
  await other.settle();
  for (const pk of ['a', 'c', 'd']) await other.write('notes', pk, { n: 2 });
  await other.push();

  const reply = server.hold('snapshot');
  const first = one.pull().catch(() => {});
  await reply.arrived;
  const request = late(server, 'snapshot');
  let isOver = false;
  void two.pull().catch(() => {}).then(() => {
    isOver = true;
  });
  await request.begun;
  const page = server.hold('snapshot');
  reply.release();
  await page.arrived;
  await other.write('notes', 'b', { n: 2 });
  await other.push();
  server.next('snapshot', () => new Promise(() => {}));
  request.go();
  await expect.poll(() => server.named('snapshot').length === 4 || isOver).toBe(true);
  page.release();
  await first;
  await one.settle();
  expect(await one.rows('notes')).toEqual(server.rows('notes'));
});

test('an op that a restored server has lost stays, though another tab has passed its version', async () => {
  const { server, one, two, other } = await twoTabs();
  await other.write('notes', 'x', { n: 1 });
  await other.push();
  await one.pull();
  const pull = late(server, 'pull');
  const second = two.pull();
  await pull.begun;
  await one.write('notes', 'a', { n: 1 });
  const push = server.hold('push');
  const first = one.push().catch(() => {});
  await push.arrived;
  server.restore(1);
  for (const pk of ['b', 'c']) await other.write('notes', pk, { n: 1 });
  await other.push();
  pull.go();
  await second;
  push.release();
  await first;
  await one.settle();
  expect(await one.outbox()).toEqual([]);
  expect(await one.rows('notes')).toEqual({ x: { n: 1 }, a: { n: 1 }, b: { n: 1 }, c: { n: 1 } });
});
