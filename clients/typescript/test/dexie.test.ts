import 'fake-indexeddb/auto';
import Dexie, { liveQuery } from 'dexie';
import { expect, test } from 'vitest';
import { apply } from '../src/rules/answer.ts';
import { Device } from '../src/device.ts';
import { DexieStore } from '../src/store/dexie.ts';

test('captures', async () => {
  const db = new Dexie('app');
  db.version(1).stores({ todos: 'id, listId', lists: 'id' });
  let device: Device;
  const tables = new Map([['todos', {}], ['lists', {}]]);
  const store = new DexieStore(db, tables, {
    async capture(tx, _state, known, values) {
      const s = await device.state(tx);
      await tx.setState(s);
      await device.record(tx, s, known, values);
    },
    captured() {},
    blocked() {},
  });
  const events: unknown[] = [];
  device = new Device(store, null as never, {
    workspace: 'w', user: null, filter: null, tables: ['todos', 'lists'],
    rulesOf: () => ({ patches: true, conditional: false }),
    tell: (e, d) => events.push([e, d]), now: Date.now, pushLimit: 500, pageLimit: 1000,
  });
  await db.table('todos').put({ id: 'a', title: 'x' });
  await device.open();
  let seen: unknown[] = [];
  let runs = 0;
  const sub = liveQuery(() => db.table('todos').toArray()).subscribe((rows) => { runs++; seen = rows; });
  await db.table('todos').put({ id: 'a', title: 'x', done: true });
  await db.table('todos').update('a', { title: 'z' });
  await db.table('todos').bulkPut(Array.from({ length: 300 }, (_, i) => ({ id: `k${i}`, n: i })));
  await db.table('todos').where('id').startsWith('k1').delete();
  await db.transaction('rw', db.table('todos'), db.table('lists'), async () => {
    await db.table('lists').add({ id: 'l' });
    await db.table('todos').add({ id: 't', listId: 'l' });
    await db.table('todos').where({ listId: 'l' }).modify({ title: 'm' });
  });
  await db.transaction('rw', db.table('todos'), async () => {
    await db.table('todos').clear();
    throw new Error('no');
  }).catch(() => {});
  await expect(db.table('todos').bulkAdd([{ id: 'b1' }, { id: 'a' }, { id: 'b2' }])).rejects.toThrow();
  await expect(db.table('todos').put({ id: 'd', at: new Date() })).rejects.toThrow('at is not JSON');
  await store.transaction(async (tx) => {
    const outbox = await tx.outbox();
    expect(outbox.length).toBe(1 + 300 - 111 + 2 + 2);
    console.log(JSON.stringify(outbox[0]), JSON.stringify(outbox.at(-1)));
    const change = { serverVersion: 5, tableName: 'todos', pk: 'r', op: 'put', applied: true, payload: { id: 'r', title: 'remote' }, stamp: { clock: 1, hlc: 'h', opId: 'o', deviceId: 'd' } } as const;
    const [was] = await tx.known(['todos\0r']);
    await tx.save([{ was: was!, synced: apply(undefined, change) }]);
  });
  await expect.poll(() => seen.length).toBe(1 + 189 + 1 + 1 + 2);
  expect(await db.table('todos').get('r')).toEqual({ id: 'r', title: 'remote' });
  await db.table('todos').update('r', { title: 'mine' });
  await store.transaction(async (tx) => {
    const [known] = await tx.known(['todos\0r']);
    console.log(JSON.stringify(known));
    expect(known!.synced!.payload).toEqual({ id: 'r', title: 'remote' });
    expect(known!.entries[0]!.op.operation).toBe('patch');
  });
  sub.unsubscribe();
});
