import { expect, test } from 'vitest';
import { Sync } from '../src/index.ts';
import { MemoryStore } from '../src/store/memory.ts';
import { keyOf } from '../src/store/store.ts';

test('what is edited during a count is counted', async () => {
  const store = new MemoryStore();
  const sync = new Sync({ url: '/sync', workspace: 'home', tables: ['todos'] }, () => store);
  const edit = async (pk: string) => {
    const key = keyOf('todos', pk);
    await store.transaction(async (tx) => {
      await sync.capture(tx, await tx.state(), await tx.known([key]), new Map([[key, { id: pk }]]));
    });
    sync.captured();
  };
  const read = store.read.bind(store);
  let isFirst = true;
  store.read = async (body) => {
    const result = await read(body);
    if (isFirst) {
      isFirst = false;
      await edit('b');
    }
    return result;
  };
  await edit('a');
  await expect.poll(() => sync.status.value.pending).toBe(2);
});
