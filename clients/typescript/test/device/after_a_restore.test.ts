import { expect, test } from 'vitest';
import { TestDevice } from '../support/device.ts';
import { FakeServer } from '../support/server.ts';

test('a device acknowledges again what the restored server does not know of it', async () => {
  const server = new FakeServer();
  const device = await TestDevice.open(server);
  await device.write('notes', 'a', { text: 'lost' });
  await device.settle();
  expect(server.cursors.size).toBe(1);
  server.restore(0);
  server.cursors.clear();
  server.push([{
    tableName: 'notes', operation: 'put', pk: 'b', payload: {},
    stamp: { deviceId: 'other', opId: 'f0000000-0000-4000-8000-000000000000', hlc: 'other', clock: 1 },
  }]);
  await device.settle();
  expect([...server.cursors.values()]).toEqual([1]);
});

test('who deleted a record is not told that it is deleted', async () => {
  const server = new FakeServer();
  const device = await TestDevice.open(server);
  await device.write('notes', 'a', { text: 'x' });
  await device.settle();
  await device.write('notes', 'a', null);
  await device.settle();
  server.restore(0);
  await device.settle();
  expect(await device.conflicts()).toEqual([]);
});

test('a loss that nobody noticed before GC came is told of records that are older', async () => {
  const server = new FakeServer();
  const device = await TestDevice.open(server);
  const other = await TestDevice.open(server);
  await other.write('notes', 'a', { text: 'theirs' });
  await other.settle();
  await device.settle();
  await device.write('notes', 'a', { text: 'mine' });
  await device.settle();
  server.restore(1);
  await other.settle();
  await other.write('notes', 'b', { n: 1 });
  await other.push();
  // The entry of its proof is gone: the server cannot say whether it was another one.
  server.next('pull', (answer) => ({ ...(answer() as object), reason: 'cursor_expired' }));
  await device.settle();
  expect(device.events('conflict')).toMatchObject([
    { kind: 'restored', pk: 'a', mine: { text: 'mine' }, theirs: { text: 'theirs' } },
  ]);
});
