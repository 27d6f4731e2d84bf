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
