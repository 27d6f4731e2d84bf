import { expect, test } from 'vitest';
import { App } from '../support/app.ts';

test('a_snapshot_of_many_records_is_stored_also_in_place_of_what_was_there', async () => {
  const other = await App.open();
  const { server } = other;
  const notes = (n: number) => Array.from({ length: 400 }, (_, i) => ({ id: `${1000 + i}`, n }));
  const write = async (n: number) => {
    await other.notes.bulkPut([...notes(n), { id: 'gone', n }]);
    await other.device.settle();
    await other.notes.delete('gone');
    await other.device.settle();
    await other.notes.put({ id: 'last', n });
    await other.device.settle();
    server.gc();
  };
  await write(1);
  const app = await App.open({ server });
  await app.device.settle();
  expect(await app.notes.toArray()).toEqual([...notes(1), { id: 'last', n: 1 }]);
  await write(2);
  await app.device.settle();
  expect(await app.notes.toArray()).toEqual([...notes(2), { id: 'last', n: 2 }]);
  expect(server.named('snapshot').length).toBeGreaterThanOrEqual(2);
});
