import type { RxConflictHandler } from 'rxdb';
import { filter, firstValueFrom } from 'rxjs';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { type ClientOptions, RxClient, type Todo, closeClients } from './support/rxdb_client.ts';
import { World, newName, op } from './support/world.ts';

let world: World;

beforeAll(async () => {
  world = await World.start(`
    create function no_swearing(payload json, previous json, op json) returns text language sql as $$
      select 'no swearing' where payload ->> 'title' = 'damn' $$;
    select sync_register_table('todos', validation => 'no_swearing(json,json,json)'), sync_register_table('patched', patches => true);
    create table lists (workspace_id text, id text primary key, title text not null);
    create table items (workspace_id text, id text primary key, title text references lists, done boolean default false);
    select sync_attach_table('lists'), sync_attach_table('items');
  `);
});

afterAll(() => world?.stop());
afterEach(closeClients);

const eventually = <T>(read: () => T) => expect.poll(read);

const open = (workspace: string, options: Partial<ClientOptions> = {}) => (
  RxClient.open({ url: world.gateway.url, workspace, ...options })
);

const mine: RxConflictHandler<Todo> = {
  isEqual: (a, b) => a.title === b.title && a._deleted === b._deleted,
  resolve: async ({ newDocumentState }) => newDocumentState,
};

test('an edit that is refused is told, and taken back; others are stored', async () => {
  const workspace = newName('w');
  // What is refused is not a matter of the app's handler, which would try for ever.
  const a = await open(workspace, { conflictHandler: mine });
  await a.todos.bulkInsert([{ id: 'x', title: 'milk' }, { id: 'y', title: 'tea' }]);
  await a.settle();
  a.line.down();
  await a.edit('x', 'damn');
  await a.edit('y', 'coffee');
  await a.todos.insert({ id: 'z', title: 'damn' });
  await a.todos.insert({ id: 'large', title: 'x'.repeat(300_000) });
  a.line.up();
  await eventually(() => a.titles()).toEqual({ x: 'milk', y: 'coffee' });
  await a.settle();
  expect(a.refusals.map(({ document, code, message }) => [document.id, code, message]).sort()).toEqual([
    ['large', 'OVERSIZED', expect.any(String)], ['x', 'REJECTED', 'no swearing'], ['z', 'REJECTED', 'no swearing'],
  ]);
  expect(a.refusals.find(({ document }) => document.id === 'x')).toMatchObject({
    document: { title: 'damn' }, master: { title: 'milk', _deleted: false },
  });
  expect(await world.records(workspace)).toMatchObject({ x: { title: 'milk' }, y: { title: 'coffee' } });
  // It may be edited again.
  await a.edit('x', 'bread');
  await a.todos.insert({ id: 'z', title: 'well' });
  await a.settle();
  expect(await world.records(workspace)).toMatchObject({ x: { title: 'bread' }, z: { title: 'well' } });
});

test('what others did to a record is seen after a refusal, also if it was pulled before', async () => {
  const workspace = newName('w');
  const a = await open(workspace);
  const b = await open(workspace);
  await a.todos.bulkInsert([{ id: 'x', title: 'milk' }, { id: 'y', title: 'tea' }]);
  await eventually(() => b.titles()).toEqual({ x: 'milk', y: 'tea' });
  b.line.down();
  const large = 'x'.repeat(300_000);
  await b.edit('x', large);
  await b.edit('y', large);
  await b.close();
  await a.edit('x', 'theirs');
  await a.remove('y');
  await a.settle();
  b.line.up();
  b.line.loseAnswer('push');
  const again = await b.restart({ retryTime: 300 });
  await again.replication.startPromise;
  await firstValueFrom(again.replication.internalReplicationState!.firstSyncDone.down.pipe(filter(Boolean)));
  await eventually(() => again.titles()).toEqual({ x: 'theirs' });
  expect(again.refusals.map(({ document, code, master }) => [document.id, code, master._deleted]).sort()).toEqual([
    ['x', 'OVERSIZED', false], ['y', 'OVERSIZED', true],
  ]);
});

test('a table that the server does not know refuses all', async () => {
  const a = await open(newName('w'), { tableName: 'unknown' });
  await a.todos.insert({ id: 'x', title: 'milk' });
  await eventually(() => a.refusals.map(({ code }) => code)).toEqual(['VALIDATION_ERROR']);
  await eventually(() => a.titles()).toEqual({});
});

test('a push that is refused as a whole is halved', async () => {
  const workspace = newName('w');
  const a = await open(workspace, { push: { batchSize: 100 } });
  await a.settle();
  // 100 of them are larger than what the gateway accepts.
  const many = Array.from({ length: 100 }, (_, i) => ({ id: `n${i}`, title: String(i).padEnd(200_000) }));
  await a.todos.bulkInsert(many);
  await eventually(() => world.sql(`select head from sync_ext.workspace where workspace_id = '${workspace}'`)).toBe('100');
  await a.settle();
  expect(a.line.count('push')).toBeGreaterThan(2);
  expect(a.refusals).toEqual([]);
});

test('a row whose parent is missing is pushed again, and refused in the end', async () => {
  const workspace = newName('w');
  await world.push(workspace, op('l', 'put', { id: 'l', title: 'list' }, 1, { tableName: 'lists' }));
  const a = await open(workspace, { tableName: 'items', retryTime: 50 });
  await a.settle();
  await a.todos.insert({ id: 'early', title: 'late' });
  await eventually(() => a.errors).toContain('CONSTRAINT');
  await world.push(workspace, op('late', 'put', { id: 'late', title: 'list' }, 1, { tableName: 'lists' }));
  await a.settle();
  expect(await world.records(workspace, 'items')).toMatchObject({ early: { title: 'late' } });
  await a.todos.insert({ id: 'orphan', title: 'never' });
  await eventually(() => a.refusals).toMatchObject([{ document: { id: 'orphan' }, code: 'CONSTRAINT', sqlState: '23503' }]);
  await eventually(() => a.titles()).toEqual({ early: 'late' });
});

test('what the server makes of a row is shown, and what the schema does not have is kept', async () => {
  const workspace = newName('w');
  await world.push(workspace, op('l', 'put', { id: 'l', title: 'list' }, 1, { tableName: 'lists' }));
  const a = await open(workspace, { tableName: 'items' });
  await a.todos.insert({ id: 'i', title: 'l' });
  // The column's default.
  await eventually(async () => (await a.todos.findOne('i').exec(true)).done).toBe(false);
  await world.push(workspace, op('x', 'put', { id: 'x', title: 'milk', sync: 1, _deleted: true, colour: 'red' }, 1));
  const b = await open(workspace);
  await eventually(() => b.titles()).toEqual({ x: 'milk' });
  await b.edit('x', 'bread');
  await b.todos.upsert({ id: 'x', title: 'butter' });
  await b.settle();
  expect((await world.records(workspace)).x).toEqual({ id: 'x', title: 'butter', sync: 1, _deleted: true, colour: 'red' });
});

test('a conflict handler that knows nothing of it keeps what the schema does not have', async () => {
  const workspace = newName('w');
  await world.push(workspace, op('x', 'put', { id: 'x', title: 'milk', colour: 'red' }, 1));
  const a = await open(workspace, { conflictHandler: {
    ...mine,
    resolve: async ({ realMasterState, newDocumentState }) => ({
      id: 'x', title: `${realMasterState.title}+${newDocumentState.title}`, _deleted: false,
    }),
  } });
  await eventually(() => a.titles()).toEqual({ x: 'milk' });
  a.line.down();
  await a.edit('x', 'mine');
  await world.push(workspace, op('x', 'put', { id: 'x', title: 'theirs', colour: 'blue' }, 2));
  a.line.up();
  await eventually(() => world.records(workspace)).toEqual({ x: { id: 'x', title: 'theirs+mine', colour: 'blue' } });
});

test('records that others patch', async () => {
  const workspace = newName('w');
  const patched = { tableName: 'patched' };
  const put = op('x', 'put', { id: 'x', title: 'milk' }, 1, patched);
  const base = put.stamp;
  await world.push(workspace, put, op('x', 'patch', { done: true }, 5, { ...patched, base }), op('x', 'patch', { title: 'bread' }, 3, { ...patched, base }));
  const a = await open(workspace, { name: 'patched' });
  await eventually(() => a.titles()).toEqual({ x: 'bread' });
  await a.edit('x', 'butter');
  await a.settle();
  expect((await world.records(workspace, 'patched')).x).toEqual({ id: 'x', title: 'butter', done: true });
  expect(a.line.ops.at(-1)).toMatchObject({ stamp: { clock: 6 } });
  expect(a.line.count('push')).toBe(1);
  // A conflict does not tell which patch is the newest: all are tried.
  a.line.down();
  await a.edit('x', 'mine');
  const { clock, hlc, opId } = a.line.ops.at(-1)!.stamp;
  const again = { ...patched, base: { clock, hlc, opId } };
  const theirs = [op('x', 'patch', { done: false }, 9, again), op('x', 'patch', { title: 'theirs' }, 8, again)];
  await world.push(workspace, ...theirs);
  a.line.up();
  await eventually(() => a.titles()).toEqual({ x: 'theirs' });
  await a.edit('x', 'mine again');
  await a.settle();
  expect((await world.records(workspace, 'patched')).x).toEqual({ id: 'x', title: 'mine again', done: false });
});

test('a patch that was pulled before a push is repeated is seen', async () => {
  const workspace = newName('w');
  const patched = { tableName: 'patched' };
  const a = await open(workspace, { name: 'patched', pull: { batchSize: 1 } });
  await a.todos.insert({ id: 'x', title: 'milk' });
  await a.settle();
  a.line.down();
  await a.edit('x', 'bread');
  await a.close();
  await world.push(workspace, op('y', 'put', { id: 'y', title: 'y' }, 1, patched));
  a.line.up();
  a.line.loseAnswer('push');
  const release = a.line.hold('pull');
  const again = await a.restart({ retryTime: 1000 });
  await eventually(async () => (await world.records(workspace, 'patched')).x).toMatchObject({ title: 'bread' });
  const { clock, hlc, opId } = again.line.ops.at(-1)!.stamp;
  await world.push(workspace, op('x', 'patch', { done: true }, 5, { ...patched, base: { clock, hlc, opId } }));
  release();
  await eventually(async () => (await again.todos.findOne('x').exec(true)).done).toBe(true);
  expect((await world.records(workspace, 'patched')).x).toEqual({ id: 'x', title: 'bread', done: true });
});

test('a winner whose payload was left out is asked for', async () => {
  const workspace = newName('w');
  const a = await open(workspace);
  await a.settle();
  await world.push(workspace, op('x', 'put', { id: 'x', title: 'theirs' }, 1));
  await eventually(() => a.titles()).toEqual({ x: 'theirs' });
  a.line.down();
  await world.push(workspace, op('x', 'put', { id: 'x', title: 'theirs 2' }, 2));
  await a.edit('x', 'mine');
  a.line.changeAnswer('push', (reply) => {
    delete reply.results[0].current.payload;
    return reply;
  });
  const seen: (string | undefined)[] = [];
  a.todos.findOne('x').$.subscribe((doc) => seen.push(doc?.title));
  a.line.up();
  await eventually(() => a.titles()).toEqual({ x: 'theirs 2' });
  await a.settle();
  expect(seen).toEqual(['mine', 'theirs 2']);
});
