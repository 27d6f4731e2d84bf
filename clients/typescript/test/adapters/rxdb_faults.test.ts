import type { RxConflictHandler } from 'rxdb';
import { filter, firstValueFrom } from 'rxjs';
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest';
import { Puller } from '../../src/rxdb/pull.ts';
import { type ClientOptions, RxClient, type Todo, closeClients } from './support/rxdb_client.ts';
import { World, newName, op, withResolvers } from './support/world.ts';

let world: World;

beforeAll(async () => {
  world = await World.start("select sync_register_table('todos')");
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

test('what is pushed again after a lost answer is the same op', async () => {
  const workspace = newName('w');
  const a = await open(workspace);
  await a.settle();
  a.line.loseAnswer('push');
  await a.todos.insert({ id: 'x', title: 'milk' });
  await a.settle();
  const [first, second] = a.line.ops;
  expect(second).toEqual(first);
  expect(await world.log(workspace)).toEqual(['x put milk']);
  expect(a.errors).toEqual(['NETWORK']);
});

test('a workspace that moves to another server is waited for, and nothing is lost', async () => {
  const workspace = newName('w');
  const a = await open(workspace);
  await a.todos.insert({ id: 'x', title: 'milk' });
  await a.settle();
  a.line.isElsewhere = true;
  await a.edit('x', 'bread');
  await a.todos.insert({ id: 'y', title: 'tea' });
  await eventually(() => a.errors.filter((code) => code === 'SX004').length).toBeGreaterThan(1);
  await a.close();
  const again = await a.restart();
  await eventually(() => again.errors).toContain('SX004');
  again.line.isElsewhere = false;
  await again.settle();
  expect(await again.titles()).toEqual({ x: 'bread', y: 'tea' });
  expect(await world.log(workspace)).toEqual(['x put milk', 'x put bread', 'y put tea']);
  expect([...a.refusals, ...again.refusals]).toEqual([]);
});

test('an edit after a lost answer and a restart is no conflict with the own edit', async () => {
  const workspace = newName('w');
  const a = await open(workspace);
  await a.todos.insert({ id: 'x', title: 'milk' });
  await a.settle();
  a.line.loseAnswer('push', true);
  await a.edit('x', 'one');
  await eventually(() => a.errors).toContain('NETWORK');
  await a.edit('x', 'two');
  await a.close();
  a.line.up();
  const again = await a.restart();
  await again.settle();
  expect(await again.titles()).toEqual({ x: 'two' });
  expect(await world.log(workspace)).toEqual(['x put milk', 'x put one', 'x put two']);
});

test('an edit that is taken back after a lost answer is taken back on the server', async () => {
  const workspace = newName('w');
  const a = await open(workspace);
  await a.todos.insert({ id: 'x', title: 'milk' });
  await a.settle();
  a.line.loseAnswer('push', true);
  await a.edit('x', 'bread');
  await eventually(() => a.errors).toContain('NETWORK');
  await a.edit('x', 'milk');
  await a.close();
  a.line.up();
  const again = await a.restart();
  await again.settle();
  expect(await again.titles()).toEqual({ x: 'milk' });
  expect(await world.log(workspace)).toEqual(['x put milk', 'x put bread', 'x put milk']);
});

test('a delete after a lost answer deletes', async () => {
  const workspace = newName('w');
  const a = await open(workspace);
  await a.settle();
  a.line.loseAnswer('push', true);
  await a.todos.insert({ id: 'x', title: 'milk' });
  await eventually(() => a.errors).toContain('NETWORK');
  await a.remove('x');
  await a.close();
  a.line.up();
  const again = await a.restart();
  await again.settle();
  expect(await world.records(workspace)).toEqual({});
});

test('somebody else goes on from an edit whose answer was lost', async () => {
  const workspace = newName('w');
  const a = await open(workspace);
  const b = await open(workspace);
  await a.settle();
  a.line.loseAnswer('push');
  const back = a.line.hold('push');
  await a.todos.insert({ id: 'x', title: 'milk' });
  await eventually(() => b.titles()).toEqual({ x: 'milk' });
  await b.edit('x', 'bread');
  await b.settle();
  back();
  await eventually(() => a.titles()).toEqual({ x: 'bread' });
  expect(await world.log(workspace)).toEqual(['x put milk', 'x put bread']);
});

test('what was written before the replication, or past its hooks, is pushed once', async () => {
  const workspace = newName('w');
  const a = await open(workspace, {
    prepare: async (todos) => {
      await todos.bulkInsert([{ id: 'x', title: 'milk' }, { id: 'y', title: 'tea' }]);
    },
  });
  a.line.loseAnswer('push');
  await a.settle();
  expect((await world.log(workspace)).sort()).toEqual(['x put milk', 'y put tea']);
  await a.edit('x', 'bread');
  await a.settle();
  expect(await world.log(workspace)).toContain('x put bread');
});

test('what is changed past the hooks after a push whose answer was lost', async () => {
  const workspace = newName('w');
  const a = await open(workspace);
  await a.settle();
  a.line.loseAnswer('push', true);
  await a.todos.insert({ id: 'x', title: 'milk' });
  await eventually(() => a.errors).toContain('NETWORK');
  const [previous] = await a.todos.storageInstance.findDocumentsById(['x'], false);
  await a.todos.storageInstance.bulkWrite([{ previous: previous!, document: { ...previous!, title: 'bread' } }], 'test');
  await a.close();
  a.line.up();
  const again = await a.restart();
  await again.settle();
  expect(await world.log(workspace)).toEqual(['x put milk', 'x put bread']);
});

test('edits in a row before the first one has come back, and without revisions', async () => {
  const workspace = newName('w');
  const a = await open(workspace, { prepare: (todos) => todos.insert({ id: 'x', title: '0' }), live: true, pollInterval: 1e9 });
  await a.settle();
  const release = a.line.hold('live');
  await a.edit('x', '1');
  await a.settle();
  await a.edit('x', '0');
  await a.settle();
  await a.edit('x', '1');
  await a.settle();
  release();
  expect(await world.log(workspace)).toEqual(['x put 0', 'x put 1', 'x put 0', 'x put 1']);
});

test('a pull that began before a push does not put back what was', async () => {
  const workspace = newName('w');
  const a = await open(workspace);
  await world.push(workspace, op('x', 'put', { id: 'x', title: 'milk' }, 1));
  await eventually(() => a.titles()).toEqual({ x: 'milk' });
  await a.settle();
  // The answer to a pull brings the document again, as it was.
  const { replication } = a;
  const seen: string[] = [];
  a.todos.findOne('x').$.subscribe((doc) => doc && seen.push(doc.title));
  a.line.changeAnswer('pull', (reply) => ({
    ...reply,
    changes: [{ serverVersion: reply.nextCursor, tableName: 'todos', pk: 'x', op: 'put', applied: true, payload: { id: 'x', title: 'milk' }, stamp: op('x', 'put', {}, 1).stamp }],
  }));
  const release = a.line.hold('pull');
  const pulls = a.line.count('pull');
  replication.reSync();
  await eventually(() => a.line.count('pull')).toBe(pulls + 1);
  await a.edit('x', 'bread');
  await eventually(async () => (await world.records(workspace)).x).toMatchObject({ title: 'bread' });
  await replication.awaitDocumentPushed(await a.todos.findOne('x').exec(true));
  release();
  await a.settle();
  expect(seen).toEqual(['milk', 'bread']);
});

test('what is pulled while a push waits for its answer is seen', async () => {
  const workspace = newName('w');
  const a = await open(workspace, { pull: { batchSize: 1 } });
  await a.todos.insert({ id: 'x', title: 'milk' });
  await a.settle();
  a.line.down();
  await a.edit('x', 'bread');
  await a.close();
  await world.push(workspace, op('y', 'put', { id: 'y', title: 'y' }, 1));
  a.line.up();
  const releasePush = a.line.hold('push');
  const releasePull = a.line.hold('pull');
  const again = await a.restart();
  await eventually(async () => (await world.records(workspace)).x).toMatchObject({ title: 'bread' });
  await world.push(workspace, op('x', 'put', { id: 'x', title: 'theirs' }, 5));
  releasePull();
  // Time to pull it before the push is answered.
  await new Promise((resolve) => { setTimeout(resolve, 200); });
  releasePush();
  await eventually(() => again.titles()).toEqual({ x: 'theirs', y: 'y' });
});

test('a record that two have deleted is made again', async () => {
  const workspace = newName('w');
  const a = await open(workspace);
  const b = await open(workspace);
  await a.todos.insert({ id: 'x', title: 'milk' });
  await eventually(() => b.titles()).toEqual({ x: 'milk' });
  a.line.down();
  await a.edit('x', 'bread');
  await a.edit('x', 'butter');
  await a.remove('x');
  await b.remove('x');
  await b.settle();
  a.line.up();
  await a.settle();
  // Its clock is below that of the delete that was not stored.
  await b.todos.insert({ id: 'x', title: 'again' });
  await eventually(() => a.titles()).toEqual({ x: 'again' });
});

test('what others did to a record is seen after an own edit was taken back', async () => {
  const workspace = newName('w');
  const a = await open(workspace);
  const b = await open(workspace, { conflictHandler: mine });
  await a.todos.insert({ id: 'x', title: 'milk' });
  await eventually(() => b.titles()).toEqual({ x: 'milk' });
  b.line.down();
  await b.replication.pause();
  await b.edit('x', 'bread');
  await b.edit('x', 'milk');
  await b.close();
  await a.edit('x', 'theirs');
  await a.settle();
  b.line.up();
  b.line.loseAnswer('push');
  const again = await b.restart({ retryTime: 300 });
  await again.replication.startPromise;
  await firstValueFrom(again.replication.internalReplicationState!.firstSyncDone.down.pipe(filter(Boolean)));
  await eventually(() => again.titles()).toEqual({ x: 'theirs' });
  expect(await world.log(workspace)).toEqual(['x put milk', 'x put theirs']);
});

test('what is made again while another edit is pushed is pushed too, though a stream brings changes', async () => {
  const workspace = newName('w');
  const a = await open(workspace);
  const b = await open(workspace);
  await b.todos.bulkInsert([{ id: 'x', title: 'x1' }, { id: 'y', title: 'y1' }]);
  await b.remove('x');
  await b.settle();
  await eventually(() => b.line.streams).toBe(1);
  // RxDB writes what takes the place of a deleted document in two steps, with the time of the first.
  const { originalStorageInstance: storage } = b.todos.storageInstance;
  const write = storage.bulkWrite.bind(storage);
  const second = withResolvers();
  const gate = withResolvers();
  storage.bulkWrite = async (rows, context) => {
    if (rows[0]!.previous?._deleted) {
      second.resolve();
      await gate.promise;
    }
    return await write(rows, context);
  };
  const again = b.todos.insert({ id: 'x', title: 'x2' });
  await second.promise;
  const release = b.line.hold('push');
  const pushes = b.line.count('push');
  await b.edit('y', 'y2');
  await eventually(() => b.line.count('push')).toBe(pushes + 1);
  gate.resolve();
  await again;
  const receive = vi.spyOn(Puller.prototype, 'receive');
  await a.todos.insert({ id: 'z', title: 'z1' });
  // Both clients' streams.
  await eventually(() => receive.mock.calls.filter(([, { changes }]) => changes.some(({ pk }) => pk === 'z')).length).toBe(2);
  receive.mockRestore();
  release();
  await eventually(async () => (await world.records(workspace)).x).toMatchObject({ title: 'x2' });
  await eventually(() => b.titles()).toEqual({ x: 'x2', y: 'y2', z: 'z1' });
});

test('a client acknowledges what it has stored', async () => {
  const workspace = newName('w');
  const a = await open(workspace);
  await a.todos.bulkInsert([{ id: 'x', title: 'milk' }, { id: 'y', title: 'tea' }]);
  await a.settle();
  const b = await open(workspace);
  await b.settle();
  b.replication.reSync();
  await eventually(() => b.line.requests.filter(({ name }) => name === 'cursor')).toMatchObject([{ body: { version: 2 } }]);
  await eventually(() => world.sql(`
    select device_id from sync_ext.device_cursor join sync_ext.workspace using (workspace_key)
     where workspace_id = '${workspace}' and last_seen_version = 2`)).toMatch(/:todos$/);
});
