import 'fake-indexeddb/auto';
import Dexie from 'dexie';
import { expect, test } from 'vitest';
import { Device } from '../src/device.ts';
import type { Entry } from '../src/rules/view.ts';
import { DexieStore } from '../src/store/dexie.ts';

/** A store, its table, and how its outbox lies in the database: the pks of each chunk. */
async function open(name: string) {
  const db = new Dexie(name);
  db.version(1).stores({ todos: 'id' });
  const store: DexieStore = new DexieStore(db, new Map([['todos', {}]]), {
    async capture(tx, state, known, values) {
      const made = await device.state(tx, state);
      if (!state) await tx.setState(made);
      await device.record(tx, made, known, values);
    },
    captured() {},
    blocked() {},
    closed() {},
  });
  const device = new Device(store, null as never, {
    workspace: 'w',
    user: null,
    filter: null,
    scopes: null,
    fields: { todos: null },
    rulesOf: () => ({ patches: false, conflicts: 'merge' }),
    tell() {},
    now: Date.now,
    pushLimit: 500,
    pageLimit: 1000,
  });
  await device.open();
  const chunks = async () => {
    const found: { values: Entry[] }[] = await db.table('_sync_outbox').toArray();
    return found.map(({ values }) => values.map(({ op }) => op.pk).join(' '));
  };
  const markSent = async (isTaken: (entry: Entry) => boolean) => await store.transaction(async (tx) => {
    await tx.markSent((await tx.outbox()).filter(isTaken).map(({ op }) => op));
  }, ['outbox']);
  const outbox = async () => await store.read((tx) => tx.outbox(), ['outbox']);
  return { store, todos: db.table('todos'), chunks, markSent, outbox, counts: () => store.read((tx) => tx.counts()) };
}

test('ops that are sent together lie together, in their order', async () => {
  const { todos, chunks, markSent, outbox } = await open('together');
  for (const id of ['a', 'b', 'c', 'd', 'e']) await todos.put({ id });
  expect(await chunks()).toEqual(['a', 'b', 'c', 'd', 'e']);
  await markSent(({ op }) => op.pk !== 'c');
  expect(await chunks()).toEqual(['a b', 'c', 'd e']);
  expect((await outbox()).map(({ op, sent }) => [op.pk, sent]))
    .toEqual([['a', true], ['b', true], ['c', false], ['d', true], ['e', true]]);
  await markSent(() => true);
  expect(await chunks()).toEqual(['a b', 'c', 'd e']);
});

test('two ops of a record do not lie together, so that they are counted', async () => {
  const { todos, chunks, markSent, counts } = await open('two');
  await todos.put({ id: 'a' });
  await markSent(() => true);
  await todos.bulkPut([{ id: 'a', n: 1 }, { id: 'b' }]);
  await todos.put({ id: 'c' });
  await markSent(() => true);
  expect(await chunks()).toEqual(['a', 'a b c']);
  expect(await counts()).toEqual({ pending: 4, blocked: 0 });
});

test('what is refused for now is counted', async () => {
  const { todos, store, counts } = await open('refused');
  await todos.bulkPut([{ id: 'a' }, { id: 'b' }]);
  await store.transaction(async (tx) => {
    const [was] = await tx.known(['todos\0a']);
    await tx.save([{ was: was!, entries: was!.entries.map((entry) => ({ ...entry, retry: 'no parent' })) }]);
  });
  expect(await counts()).toEqual({ pending: 2, blocked: 1 });
});
