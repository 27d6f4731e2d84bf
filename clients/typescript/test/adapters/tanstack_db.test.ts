import 'fake-indexeddb/auto';
import { type StandardSchema, createCollection, createLiveQueryCollection, createTransaction, eq } from '@tanstack/db';
import Dexie from 'dexie';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { syncTables } from '../../src/index.ts';
import type { Entry } from '../../src/rules/view.ts';
import { syncExtCollectionOptions, writeMutations } from '../../src/tanstack-db.ts';
import { removeExamples, runExample } from './support/example.ts';
import { TanstackClient, type Todo, closeClients, database } from './support/tanstack_client.ts';
import { World, newName } from './support/world.ts';

let world: World;

beforeAll(async () => {
  world = await World.start(`
    create function no_swearing(payload json, previous json, op json) returns text language sql as $$
      select 'no swearing' where payload ->> 'title' = 'damn' $$;
    select sync_register_table('todos', patches => true, validation => 'no_swearing(json,json,json)'),
           sync_register_table('lists');
  `);
});

afterAll(() => world?.stop());
afterAll(removeExamples);
afterEach(closeClients);

const eventually = <T>(read: () => T) => expect.poll(read);

const open = (workspace: string) => TanstackClient.open({
  url: world.gateway.url, workspace, tables: { todos: { patches: true }, lists: {} },
});

const isIdle = (client: TanstackClient) => eventually(async () => (await client.sync.pending()).length).toBe(0);

test('what one writes the other one sees', async () => {
  const workspace = newName('w');
  const [a, b] = [await open(workspace), await open(workspace)];
  await a.todos.insert([{ id: 'x', title: 'milk' }, { id: 'y', title: 'tea' }]).when('settled');
  await eventually(() => b.titles()).toEqual({ x: 'milk', y: 'tea' });
  b.todos.update('x', (draft) => { draft.title = 'bread'; });
  b.todos.delete('y');
  await eventually(() => a.titles()).toEqual({ x: 'bread' });
  expect(await world.records(workspace)).toEqual({ x: { id: 'x', title: 'bread' } });
});

test('a mutation is seen at once, and stays', async () => {
  const a = await open(newName('w'));
  const events: string[] = [];
  a.todos.subscribeChanges((changes) => events.push(...changes.map(({ type, key }) => `${type} ${key}`)));
  const transaction = a.todos.insert({ id: 'x', title: 'milk' });
  expect(a.titles()).toEqual({ x: 'milk' });
  await transaction.when('settled');
  expect(a.titles()).toEqual({ x: 'milk' });
  expect(await a.db.todos.get('x')).toEqual({ id: 'x', title: 'milk' });
  const update = a.todos.update('x', (draft) => { draft.title = 'bread'; });
  expect(a.titles()).toEqual({ x: 'bread' });
  await update.when('settled');
  await isIdle(a);
  const removal = a.todos.delete('x');
  expect(a.titles()).toEqual({});
  await removal.when('settled');
  expect(await a.db.todos.count()).toBe(0);
  // Becoming a stored row is told as an update.
  expect(events.filter((event, i) => event !== events[i - 1])).toEqual(['insert x', 'update x', 'delete x']);
});

test('live queries follow', async () => {
  const workspace = newName('w');
  const [a, b] = [await open(workspace), await open(workspace)];
  const open_ = createLiveQueryCollection((query) => query
    .from({ todo: b.todos })
    .join({ list: b.lists }, ({ todo, list }) => eq(todo.listId, list.id), 'inner')
    .where(({ todo }) => eq(todo.done, false))
    .select(({ todo, list }) => ({ id: todo.id, title: todo.title, list: list.title })));
  await open_.preload();
  a.lists.insert({ id: 'l', title: 'shop' });
  a.todos.insert({ id: 'x', title: 'milk', done: false, listId: 'l' });
  a.todos.insert({ id: 'y', title: 'tea', done: true, listId: 'l' });
  await eventually(() => open_.toArray.map(({ title, list }) => `${list}: ${title}`)).toEqual(['shop: milk']);
  a.todos.update('x', (draft) => { draft.done = true; });
  await eventually(() => open_.size).toBe(0);
  await open_.cleanup();
});

test('edits of different fields are merged', async () => {
  const workspace = newName('w');
  const [a, b] = [await open(workspace), await open(workspace)];
  a.todos.insert({ id: 'x', title: 'milk', done: false });
  await eventually(() => b.titles()).toEqual({ x: 'milk' });
  b.line.down();
  b.todos.update('x', (draft) => { draft.done = true; });
  await a.todos.update('x', (draft) => { draft.title = 'bread'; }).when('settled');
  await isIdle(a);
  b.line.up();
  b.sync.retry();
  await eventually(() => a.todos.get('x')).toMatchObject({ title: 'bread', done: true });
  await eventually(() => b.todos.get('x')).toMatchObject({ title: 'bread', done: true });
});

test('of two edits of the same record the last one wins, and the author of the other is told', async () => {
  const workspace = newName('w');
  const [a, b] = [await open(workspace), await open(workspace)];
  a.lists.insert({ id: 'x', title: 'shop' });
  await eventually(() => b.lists.get('x')?.title).toBe('shop');
  b.line.down();
  await a.lists.update('x', (draft) => { draft.title = 'a'; }).when('settled');
  await isIdle(a);
  await b.lists.update('x', (draft) => { draft.title = 'b'; }).when('settled');
  b.line.up();
  b.sync.retry();
  await eventually(() => a.lists.get('x')?.title).toBe('b');
  expect(b.lists.get('x')!.title).toBe('b');
  await eventually(async () => (await a.sync.conflicts()).map(({ kind, mine }) => [kind, mine?.title])).toEqual([['overwritten', 'a']]);
});

test('what is written offline outlasts a restart, and is pushed once, whatever is lost', async () => {
  const workspace = newName('w');
  const a = await open(workspace);
  a.line.down();
  await a.todos.insert({ id: 'x', title: 'milk' }).when('settled');
  await a.todos.insert({ id: 'y', title: 'tea' }).when('settled');
  // What was sent cannot change any more.
  a.sync.retry();
  await eventually(async () => (await a.sync.export() as { outbox: Entry[] }).outbox.map(({ sent }) => sent)).toEqual([true, true]);
  await a.todos.update('x', (draft) => { draft.title = 'bread'; }).when('settled');
  const again = await a.restart();
  expect(again.titles()).toEqual({ x: 'bread', y: 'tea' });
  again.line.loseAnswer('push');
  again.line.up();
  again.sync.retry();
  await isIdle(again);
  expect((await world.log(workspace)).sort()).toEqual(['x patch bread', 'x put milk', 'y put tea']);
});

test('a workspace that moves to another server is waited for, and nothing is lost', async () => {
  const workspace = newName('w');
  const a = await open(workspace);
  await a.todos.insert({ id: 'x', title: 'milk', done: false }).when('settled');
  await isIdle(a);
  a.line.isElsewhere = true;
  await a.todos.update('x', (draft) => { draft.done = true; }).when('settled');
  await a.todos.insert({ id: 'y', title: 'tea' }).when('settled');
  await eventually(() => a.sync.status.value).toMatchObject({ phase: 'waiting', error: { code: 'SX004' }, pending: 2 });
  expect(a.titles()).toEqual({ x: 'milk', y: 'tea' });
  a.line.isElsewhere = false;
  await isIdle(a);
  expect(a.todos.get('x')).toMatchObject({ title: 'milk', done: true });
  expect(await world.log(workspace)).toEqual(['x put milk', 'x patch milk', 'y put tea']);
  expect(await a.sync.conflicts()).toEqual([]);
});

test('an edit that the server refuses is taken back, and told', async () => {
  const workspace = newName('w');
  const a = await open(workspace);
  await a.todos.insert({ id: 'x', title: 'milk' }).when('settled');
  await isIdle(a);
  await a.todos.update('x', (draft) => { draft.title = 'damn'; }).when('settled');
  await a.todos.insert({ id: 'y', title: 'damn' }).when('settled');
  await eventually(() => a.titles()).toEqual({ x: 'milk' });
  const conflicts = await a.todos.utils.sync.conflicts();
  expect(conflicts.map(({ pk, error }) => [pk, error!.code, error!.message]).sort()).toEqual([
    ['x', 'REJECTED', 'no swearing'], ['y', 'REJECTED', 'no swearing'],
  ]);
});

test('a record that cannot be synced is refused at once', async () => {
  const a = await open(newName('w'));
  const transaction = a.todos.insert({ id: 'x', title: new Date() as never });
  await expect(transaction.when('settled')).rejects.toThrow('title is not JSON: Date');
  expect(a.titles()).toEqual({});
});

test('a client that was away long sees what there is', async () => {
  const workspace = newName('w');
  const [a, b] = [await open(workspace), await open(workspace)];
  a.todos.insert([{ id: 'gone', title: 'g' }, { id: 'kept', title: 'k' }]);
  await eventually(() => b.titles()).toEqual({ gone: 'g', kept: 'k' });
  b.line.down();
  await a.todos.delete('gone').when('settled');
  await a.todos.update('kept', (draft) => { draft.title = 'k2'; }).when('settled');
  await isIdle(a);
  await world.purge(workspace);
  b.todos.insert({ id: 'new', title: 'n' });
  b.line.up();
  b.sync.retry();
  await eventually(() => b.titles()).toEqual({ kept: 'k2', new: 'n' });
  await eventually(() => a.titles()).toEqual({ kept: 'k2', new: 'n' });
});

test('what the app writes into the table itself is shown, in whatever tab', async () => {
  const a = await open(newName('w'));
  await a.db.todos.bulkPut(Array.from({ length: 60 }, (_, i) => ({ id: `n${i}`, title: String(i) })));
  await eventually(() => a.todos.size).toBe(60);
  await a.db.todos.where('id').startsWith('n1').delete();
  await eventually(() => a.todos.size).toBe(49);
  await a.db.todos.update('n2', { title: 'two' });
  await eventually(() => a.titles().n2).toBe('two');
  const other = database(a.db.name);
  syncTables(other, { workspace: a.options.workspace, url: a.options.url, tables: ['todos', 'lists'] });
  await other.todos.put({ id: 'other', title: 'o' });
  await eventually(() => a.titles().other).toBe('o');
  await other.todos.clear();
  await eventually(() => a.todos.size).toBe(0);
  other.close();
});

test('an update changes its fields only, and brings back what was deleted meanwhile', async () => {
  const a = await open(newName('w'));
  await a.todos.insert([{ id: 'x', title: 'milk', done: false, listId: 'l' }, { id: 'y', title: 'tea' }]).when('settled');
  const transaction = createTransaction<Todo>({ autoCommit: false, mutationFn: writeMutations });
  transaction.mutate(() => {
    a.todos.update('x', (draft) => {
      draft.title = 'bread';
      delete draft.listId;
    });
    a.todos.update('y', (draft) => { draft.title = 'coffee'; });
  });
  await a.db.todos.update('x', { done: true, colour: 'red' } as never);
  await a.db.todos.delete('y');
  await transaction.commit();
  expect(await a.db.todos.toArray()).toEqual([
    { id: 'x', title: 'bread', done: true, colour: 'red' }, { id: 'y', title: 'coffee' },
  ]);
  expect(a.titles()).toEqual({ x: 'bread', y: 'coffee' });
});

test('a transaction over two collections is stored as a whole, or not at all', async () => {
  const workspace = newName('w');
  const [a, b] = [await open(workspace), await open(workspace)];
  const both = (title: string) => {
    const transaction = createTransaction({ mutationFn: writeMutations });
    transaction.mutate(() => {
      a.lists.insert({ id: `l ${title}`, title: 'shop' });
      a.todos.insert({ id: `t ${title}`, title: (title === 'bad' ? NaN : title) as string });
    });
    return transaction.when('settled');
  };
  await both('good');
  await expect(both('bad')).rejects.toThrow('title is not JSON');
  expect(a.titles()).toEqual({ 't good': 'good' });
  expect(a.lists.toArray).toMatchObject([{ id: 'l good' }]);
  await eventually(() => b.titles()).toEqual({ 't good': 'good' });
  const push = a.line.requests.find(({ name }) => name === 'push');
  expect(push!.body).toHaveLength(2);
});

test('an insert of what arrived meanwhile fails, and what arrived is shown', async () => {
  const a = await open(newName('w'));
  const transaction = createTransaction<Todo>({ autoCommit: false, mutationFn: writeMutations });
  transaction.mutate(() => a.todos.insert({ id: 'x', title: 'mine' }));
  await a.db.todos.put({ id: 'x', title: 'theirs' });
  await expect(transaction.commit()).rejects.toThrow();
  await eventually(() => a.titles()).toEqual({ x: 'theirs' });
});

test('a mutation within a transaction of the app', async () => {
  const a = await open(newName('w'));
  const inner = await a.db.transaction('rw', a.db.lists, async () => {
    await a.db.lists.put({ id: 'l', title: 'shop' });
    return a.todos.insert({ id: 'x', title: 'milk' });
  });
  await inner.when('settled');
  expect(a.titles()).toEqual({ x: 'milk' });
  await eventually(() => a.lists.size).toBe(1);
});

test('a collection that was cleaned up begins anew', async () => {
  const a = await open(newName('w'));
  await a.todos.insert({ id: 'x', title: 'milk' }).when('settled');
  await a.todos.cleanup();
  await a.db.todos.put({ id: 'y', title: 'tea' });
  await a.todos.preload();
  expect(a.titles()).toEqual({ x: 'milk', y: 'tea' });
  await a.db.todos.put({ id: 'z', title: 'water' });
  await eventually(() => a.titles().z).toBe('water');
});

test('a database that cannot be read is told to those who wait', async () => {
  const db = database(newName('db'));
  const sync = syncTables(db, { workspace: 'w', url: world.gateway.url, tables: ['todos'] });
  const todos = createCollection(syncExtCollectionOptions({ table: db.todos, sync }));
  db.close();
  await expect(todos.preload()).rejects.toThrow();
});

test('a schema of the collection checks what is written', async () => {
  const a = await open(newName('w'));
  const schema: StandardSchema<Todo> = {
    '~standard': {
      version: 1,
      vendor: 'test',
      validate: (value) => ((value as Todo).title ? { value } : { issues: [{ message: 'a todo needs a title' }] }),
    },
  };
  const todos = createCollection(syncExtCollectionOptions({ table: a.db.todos, sync: a.sync, schema }));
  await todos.preload();
  expect(() => todos.insert({ id: 'x', title: '' })).toThrow('a todo needs a title');
  await todos.insert({ id: 'x', title: 'milk' }).when('settled');
  expect(todos.get('x')).toMatchObject({ title: 'milk' });
  await todos.cleanup();
});

test('tables that cannot be shown', () => {
  const db = new Dexie(newName('db'));
  db.version(1).stores({ todos: 'id', other: 'id', keyless: '' });
  const sync = syncTables(db, { workspace: 'w', url: '', tables: ['todos', 'keyless'] });
  expect(() => syncExtCollectionOptions({ table: db.table('other'), sync })).toThrow('the table other is not synced');
  expect(() => syncExtCollectionOptions({ table: db.table('keyless'), sync })).toThrow('do not have their key in a field');
});

test('the examples of the document', async () => {
  const { url } = world.gateway;
  const { db, open: unfinished, sync, todos } = await runExample('tanstack-db.md', 0, url);
  expect(unfinished.toArray.map(({ title }: Todo) => title)).toEqual(['Oat milk']);
  const { transaction } = await runExample('tanstack-db.md', 1, url);
  expect(transaction.state).toBe('completed');
  await eventually(async () => Object.values(await world.records('team')).map(({ title }) => title)).toContain('Butter');
  sync.stop();
  await Promise.all([unfinished.cleanup(), todos.cleanup()]);
  db.close();
});
