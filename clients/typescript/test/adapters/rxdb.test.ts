import type { RxConflictHandler, RxReplicationConflict } from 'rxdb';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { type ClientOptions, RxClient, type Todo, closeClients } from './support/rxdb_client.ts';
import { removeExamples, runExample } from './support/example.ts';
import { World, newName } from './support/world.ts';

let world: World;

beforeAll(async () => {
  world = await World.start(`
    select sync_register_table('todos'), sync_register_table('lists'), sync_register_table('patched', patches => true);
  `);
});

afterAll(() => world?.stop());
afterAll(removeExamples);
afterEach(closeClients);

const eventually = <T>(read: () => T) => expect.poll(read);

async function clients(number: number, options: Partial<ClientOptions> = {}): Promise<{ workspace: string; all: RxClient[] }> {
  const workspace = newName('w');
  const all = [];
  for (let i = 0; i < number; i++) all.push(await RxClient.open({ url: world.gateway.url, workspace, ...options }));
  return { workspace, all };
}

test('inserts, edits and deletes arrive at the other client', async () => {
  const { workspace, all: [a, b] } = await clients(2);
  await a!.todos.bulkInsert([{ id: 'x', title: 'milk' }, { id: 'y', title: 'tea' }]);
  await eventually(() => b!.titles()).toEqual({ x: 'milk', y: 'tea' });
  await b!.edit('x', 'bread');
  await b!.remove('y');
  await eventually(() => a!.titles()).toEqual({ x: 'bread' });
  await a!.todos.upsert({ id: 'x', title: 'butter' });
  await a!.todos.upsert({ id: 'y', title: 'coffee' });
  await eventually(() => b!.titles()).toEqual({ x: 'butter', y: 'coffee' });
  expect(await world.log(workspace)).toEqual([
    'x put milk', 'y put tea', 'x put bread', 'y delete', 'x put butter', 'y put coffee',
  ]);
  expect(await world.records(workspace)).toEqual({ x: { id: 'x', title: 'butter' }, y: { id: 'y', title: 'coffee' } });
  expect([...a!.errors, ...b!.errors]).toEqual([]);
});

test('an own edit that comes back is not written again', async () => {
  const { all: [a, b] } = await clients(2);
  await a!.todos.insert({ id: 'x', title: 'milk' });
  await a!.settle();
  await a!.edit('x', 'bread');
  await a!.settle();
  await eventually(() => b!.titles()).toEqual({ x: 'bread' });
  await b!.todos.insert({ id: 'last', title: 'l' });
  // It comes by the stream after all own edits.
  await eventually(() => a!.titles()).toEqual({ x: 'bread', last: 'l' });
  expect((await a!.todos.findOne('x').exec(true)).revision).toMatch(/^2-/);
  // Each edit was pushed once, under the condition that nobody has edited since the last.
  const [first, second] = a!.line.ops;
  expect(a!.line.ops).toHaveLength(2);
  expect(first!.expected).toBe('none');
  expect(second!.expected).toBe(first!.stamp.opId);
  expect(second!.stamp.clock).toBe(2);
});

test('an edit that changes nothing is not pushed', async () => {
  const { workspace, all: [a] } = await clients(1);
  await a!.todos.insert({ id: 'x', title: 'milk' });
  await a!.settle();
  await a!.edit('x', 'milk');
  await a!.todos.upsert({ id: 'x', title: 'milk' });
  await a!.todos.insert({ id: 'last', title: 'l' });
  await a!.settle();
  expect(await world.log(workspace)).toEqual(['x put milk', 'last put l']);
  expect(a!.line.ops).toHaveLength(2);
  // Nor one that was taken back before it was pushed.
  await a!.replication.pause();
  await a!.edit('x', 'bread');
  await a!.edit('x', 'milk');
  await a!.replication.start();
  await a!.settle();
  expect(await world.log(workspace)).toEqual(['x put milk', 'last put l']);
  await a!.edit('x', 'bread');
  await a!.settle();
  expect(await world.log(workspace)).toEqual(['x put milk', 'last put l', 'x put bread']);
});

test('edits made offline are pushed later', async () => {
  const { workspace, all: [a, b] } = await clients(2);
  await a!.todos.insert({ id: 'x', title: 'milk' });
  await eventually(() => b!.titles()).toEqual({ x: 'milk' });
  a!.line.down();
  await a!.edit('x', 'one');
  await a!.edit('x', 'two');
  await a!.todos.insert({ id: 'short', title: 's' });
  await a!.remove('short');
  await b!.todos.insert({ id: 'y', title: 'tea' });
  await b!.settle();
  a!.line.up();
  await eventually(() => a!.titles()).toEqual({ x: 'two', y: 'tea' });
  await eventually(() => b!.titles()).toEqual({ x: 'two', y: 'tea' });
  expect(await world.records(workspace)).toMatchObject({ x: { title: 'two' }, y: { title: 'tea' } });
});

test('of two edits made offline the second one finds what the server has', async () => {
  const { workspace, all: [a, b] } = await clients(2);
  await a!.todos.insert({ id: 'x', title: 'milk' });
  await eventually(() => b!.titles()).toEqual({ x: 'milk' });
  b!.line.down();
  await b!.edit('x', 'b');
  await a!.edit('x', 'a');
  await a!.settle();
  const conflicts: RxReplicationConflict<Todo>[] = [];
  b!.replication.conflict$.subscribe((conflict) => conflicts.push(conflict));
  b!.line.up();
  await eventually(() => b!.titles()).toEqual({ x: 'a' });
  await b!.settle();
  expect(await world.log(workspace)).toEqual(['x put milk', 'x put a']);
  expect(conflicts).toMatchObject([{
    input: { newDocumentState: { title: 'b' }, assumedMasterState: { title: 'milk' }, realMasterState: { title: 'a' } },
    output: { title: 'a' },
  }]);
  // It goes on from there.
  await b!.edit('x', 'b again');
  await eventually(() => a!.titles()).toEqual({ x: 'b again' });
});

test('a conflict handler of the app merges', async () => {
  const conflictHandler: RxConflictHandler<Todo> = {
    isEqual: (one, other) => one.title === other.title && one.done === other.done && one._deleted === other._deleted,
    resolve: async ({ realMasterState, newDocumentState }) => ({
      ...newDocumentState,
      title: [realMasterState.title, newDocumentState.title].sort().join('+'),
      _deleted: false,
    }),
  };
  const { workspace, all: [a, b] } = await clients(2, { conflictHandler });
  await a!.todos.insert({ id: 'x', title: 'milk' });
  await eventually(() => b!.titles()).toEqual({ x: 'milk' });
  b!.line.down();
  await b!.edit('x', 'b');
  await a!.edit('x', 'a');
  await a!.settle();
  b!.line.up();
  await eventually(() => a!.titles()).toEqual({ x: 'a+b' });
  await eventually(() => b!.titles()).toEqual({ x: 'a+b' });
  expect(await world.log(workspace)).toEqual(['x put milk', 'x put a', 'x put a+b']);
  // A delete that meets an edit, too.
  a!.line.down();
  await a!.remove('x');
  await b!.edit('x', 'c');
  await b!.settle();
  a!.line.up();
  await eventually(() => a!.titles()).toEqual({ x: 'a+b+c' });
  await eventually(() => b!.titles()).toEqual({ x: 'a+b+c' });
});

test('a delete and an edit made offline: the first one counts', async () => {
  const { all: [a, b] } = await clients(2);
  await a!.todos.bulkInsert([{ id: 'x', title: 'milk' }, { id: 'y', title: 'tea' }]);
  await eventually(() => b!.titles()).toEqual({ x: 'milk', y: 'tea' });
  b!.line.down();
  await a!.remove('x');
  await a!.edit('y', 'a');
  await a!.settle();
  await b!.edit('x', 'b');
  await b!.remove('y');
  b!.line.up();
  await eventually(() => b!.titles()).toEqual({ y: 'a' });
  await eventually(() => a!.titles()).toEqual({ y: 'a' });
});

test('a document is made again after its delete, known or not', async () => {
  const { workspace, all: [a] } = await clients(1);
  await a!.todos.insert({ id: 'x', title: 'milk' });
  await a!.edit('x', 'bread');
  await a!.remove('x');
  await a!.settle();
  const b = await RxClient.open({ url: world.gateway.url, workspace });
  await b.settle();
  // The tombstone has a higher clock, and this client has not stored it.
  await b.todos.insert({ id: 'x', title: 'b' });
  await eventually(() => a!.titles()).toEqual({ x: 'b' });
  await a!.remove('x');
  await a!.settle();
  await a!.todos.insert({ id: 'x', title: 'a' });
  await eventually(() => b.titles()).toEqual({ x: 'a' });
  expect([...a!.errors, ...b.errors]).toEqual([]);
});

test('all edits to one document in a row', async () => {
  const { all: [a, b] } = await clients(2);
  await a!.todos.insert({ id: 'x', title: '0' });
  for (let i = 1; i <= 20; i++) await a!.edit('x', String(i));
  await eventually(() => b!.titles()).toEqual({ x: '20' });
  expect([...a!.errors, ...b!.errors]).toEqual([]);
});

test('many documents come in pages, and after a restart only what is new', async () => {
  const { workspace, all: [a] } = await clients(1);
  const many = Array.from({ length: 250 }, (_, i) => ({ id: `n${i}`, title: String(i) }));
  await a!.todos.bulkInsert(many);
  await a!.settle();
  const b = await RxClient.open({ url: world.gateway.url, workspace });
  await b.replication.awaitInitialReplication();
  expect(Object.keys(await b.titles())).toHaveLength(250);
  await b.close();
  await a!.edit('n7', 'seven');
  await a!.settle();
  const requests = b.line.requests.length;
  const again = await b.restart();
  await again.replication.awaitInitialReplication();
  expect((await again.titles()).n7).toBe('seven');
  const [pull] = b.line.requests.slice(requests);
  expect(pull).toMatchObject({ name: 'pull', body: { cursor: 250, proof: expect.any(String) } });
  expect(again.line.count('push')).toBe(0);
});

test('a client that was killed pushes what it had not pushed', async () => {
  const { workspace, all: [a, b] } = await clients(2);
  await a!.todos.insert({ id: 'x', title: 'milk' });
  await eventually(() => b!.titles()).toEqual({ x: 'milk' });
  a!.line.down();
  await a!.edit('x', 'bread');
  await a!.todos.insert({ id: 'y', title: 'tea' });
  await a!.close();
  a!.line.up();
  const again = await a!.restart();
  await eventually(() => b!.titles()).toEqual({ x: 'bread', y: 'tea' });
  expect(await again.titles()).toEqual({ x: 'bread', y: 'tea' });
  expect(await world.log(workspace)).toEqual(['x put milk', 'x put bread', 'y put tea']);
});

test('collections share one stream, and one that nobody edits keeps up', async () => {
  const { workspace, all: [a] } = await clients(1);
  const line = a!.line;
  const lists = await RxClient.open({ url: world.gateway.url, workspace, name: 'lists' }, newName('db'), line);
  await lists.settle();
  const b = await RxClient.open({ url: world.gateway.url, workspace });
  for (let i = 0; i < 5; i++) await b.todos.insert({ id: `t${i}`, title: 't' });
  await b.settle();
  await eventually(async () => Object.keys(await a!.titles()).length).toBe(5);
  const listsB = await RxClient.open({ url: world.gateway.url, workspace, name: 'lists' });
  await listsB.todos.insert({ id: 'l', title: 'list' });
  await eventually(() => lists.titles()).toEqual({ l: 'list' });
  // What the stream brings is not asked for again.
  expect(line.count('pull')).toBe(2);
  expect(line.streams).toBe(1);
  await b.todos.insert({ id: 'late', title: 't' });
  await b.settle();
  const again = await lists.restart();
  await again.settle();
  const more = await again.restart();
  await more.settle();
  expect(line.requests.filter(({ name }) => name === 'pull').at(-1)!.body).toMatchObject({ cursor: 7, tables: ['lists'] });
});

test('one tab pushes what all of them write, with the revisions that they made', async () => {
  const { workspace, all: [a] } = await clients(1, { isTab: true });
  await a!.settle();
  const other = await RxClient.open({ url: world.gateway.url, workspace, isTab: true }, a!.database);
  await other.todos.insert({ id: 'x', title: 'milk' });
  await eventually(() => a!.titles()).toEqual({ x: 'milk' });
  await eventually(async () => Object.keys(await world.records(workspace))).toEqual(['x']);
  await other.edit('x', 'bread');
  await eventually(() => world.records(workspace)).toMatchObject({ x: { title: 'bread' } });
  expect(other.line.requests).toEqual([]);
  expect(a!.line.ops.at(-1)!.stamp.opId).toBe((await other.todos.findOne('x').exec(true)).sync!.opId);
  // The other one takes over.
  await a!.close();
  await other.edit('x', 'butter');
  await eventually(() => world.records(workspace)).toMatchObject({ x: { title: 'butter' } });
});

test('a replication that is cancelled ends its calls, without an error', async () => {
  const { all: [a] } = await clients(1);
  await a!.settle();
  a!.line.hold('push');
  await a!.todos.insert({ id: 'x', title: 'milk' });
  await eventually(() => a!.line.count('push')).toBe(1);
  await a!.replication.cancel();
  expect(a!.line.streams).toBe(0);
  expect([...a!.line.signals].every((signal) => signal.aborted)).toBe(true);
  expect(a!.errors).toEqual([]);
});

test('devices that only read', async () => {
  const { workspace, all: [a] } = await clients(1);
  await a!.todos.bulkInsert([{ id: 'x', title: 'milk' }, { id: 'y', title: 'tea' }]);
  await a!.settle();
  const b = await RxClient.open({ url: world.gateway.url, workspace, push: false });
  await eventually(() => b.titles()).toEqual({ x: 'milk', y: 'tea' });
  await b.edit('x', 'mine');
  await a!.edit('x', 'bread');
  await a!.remove('y');
  await eventually(() => b.titles()).toEqual({ x: 'bread' });
  expect(b.line.count('push')).toBe(0);
});

test('the example of the document', async () => {
  const { db, replication } = await runExample('rxdb.md', 0, world.gateway.url);
  await replication.awaitInSync();
  expect(Object.values(await world.records('team'))).toMatchObject([{ title: 'Milk' }]);
  await db.close();
});
