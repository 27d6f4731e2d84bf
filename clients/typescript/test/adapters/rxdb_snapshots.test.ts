import type { WithDeleted } from 'rxdb';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { type ClientOptions, RxClient, type Todo, closeClients } from './support/rxdb_client.ts';
import { World, newName, op } from './support/world.ts';

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

test('a client that was away takes a snapshot; its edits stay', async () => {
  const workspace = newName('w');
  const a = await open(workspace);
  const b = await open(workspace);
  await a.todos.bulkInsert([{ id: 'gone', title: 'g' }, { id: 'edited', title: 'e' }, { id: 'kept', title: 'k' }, { id: 'both', title: 'b' }]);
  await eventually(async () => Object.keys(await b.titles()).length).toBe(4);
  await b.close();
  await a.remove('gone');
  await a.remove('both');
  await a.edit('edited', 'e2');
  await a.edit('kept', 'k2');
  await a.settle();
  await world.purge(workspace);
  b.line.down();
  const back = await b.restart();
  await back.todos.insert({ id: 'new', title: 'n' });
  await back.edit('kept', 'k3');
  await back.edit('both', 'mine');
  back.line.up();
  await eventually(() => back.titles()).toEqual({ edited: 'e2', kept: 'k2', new: 'n' });
  await eventually(() => a.titles()).toEqual({ edited: 'e2', kept: 'k2', new: 'n' });
  expect(back.line.count('snapshot')).toBeGreaterThan(0);
  await back.edit('edited', 'e3');
  await eventually(async () => (await a.titles()).edited).toBe('e3');
});

test('a client whose stream was cut for long takes a snapshot when it is connected again', async () => {
  const workspace = newName('w');
  const a = await open(workspace);
  const b = await open(workspace, { pollInterval: 1e9 });
  await a.todos.bulkInsert([{ id: 'gone', title: 'g' }, { id: 'kept', title: 'k' }]);
  await eventually(() => b.titles()).toEqual({ gone: 'g', kept: 'k' });
  b.line.down();
  await a.remove('gone');
  await a.edit('kept', 'k2');
  await a.settle();
  await world.purge(workspace);
  b.line.up();
  await eventually(() => b.titles()).toEqual({ kept: 'k2' });
  // And goes on with a stream.
  await a.edit('kept', 'k3');
  await eventually(() => b.titles()).toEqual({ kept: 'k3' });
});

test('a new client begins with a snapshot, in pages, whatever interrupts it', async () => {
  const workspace = newName('w');
  const a = await open(workspace);
  await a.todos.bulkInsert(Array.from({ length: 25 }, (_, i) => ({ id: `n${i}`, title: String(i) })));
  await a.remove('n3');
  await a.settle();
  await a.edit('n4', 'four');
  await a.settle();
  await world.purge(workspace);
  const b = await open(workspace, { pull: { batchSize: 4 } });
  b.line.loseAnswer('snapshot');
  await eventually(() => b.line.count('snapshot')).toBeGreaterThan(2);
  const release = b.line.hold('snapshot');
  await b.close();
  release();
  const again = await b.restart();
  await again.replication.awaitInitialReplication();
  const titles = await again.titles();
  expect(Object.keys(titles)).toHaveLength(24);
  expect(titles.n4).toBe('four');
  expect(titles.n3).toBeUndefined();
});

test('a snapshot that a restart interrupts begins again', async () => {
  const workspace = newName('w');
  const a = await open(workspace);
  const b = await open(workspace);
  await a.todos.bulkInsert(['a gone', 'b', 'c', 'd', 'e', 'f', 'z gone'].map((id) => ({ id, title: id })));
  await eventually(async () => Object.keys(await b.titles()).length).toBe(7);
  await b.close();
  for (const id of ['a gone', 'z gone']) await a.remove(id);
  await a.edit('b', 'b2');
  await a.settle();
  await world.purge(workspace);
  // The second page does not arrive.
  b.line.loseAfter('snapshot', 1);
  const back = await b.restart({ pull: { batchSize: 2 } });
  await eventually(() => back.line.count('snapshot')).toBe(2);
  await eventually(async () => (await back.titles()).b).toBe('b2');
  await back.close();
  const again = await back.restart({ pull: { batchSize: 2 } });
  again.line.up();
  again.replication.reSync();
  await eventually(async () => Object.keys(await again.titles()).sort()).toEqual(['b', 'c', 'd', 'e', 'f']);
});

test('what RxDB has not stored yet when a snapshot begins is gone if it is not listed', async () => {
  const workspace = newName('w');
  const a = await open(workspace);
  await a.todos.bulkInsert([{ id: 'gone', title: 'g' }, { id: 'kept', title: 'k' }]);
  await a.settle();
  let isFirst = true;
  const modifier = async (doc: WithDeleted<Todo>) => {
    if (isFirst) {
      isFirst = false;
      await a.remove('gone');
      await a.edit('kept', 'k2');
      await a.settle();
      await world.purge(workspace);
    }
    return doc;
  };
  const b = await open(workspace, { pull: { batchSize: 1, modifier }, autoStart: false });
  const asked = eventually(() => b.line.count('snapshot')).toBeGreaterThan(0);
  const { storageInstance } = b.todos;
  const write = storageInstance.bulkWrite.bind(storageInstance);
  storageInstance.bulkWrite = async (rows, context) => {
    await asked;
    return await write(rows, context);
  };
  await b.replication.start();
  await b.replication.awaitInitialReplication();
  expect(await b.titles()).toEqual({ kept: 'k2' });
});

test('a document that is deleted while a new client reads is gone', async () => {
  const workspace = newName('w');
  const a = await open(workspace);
  await a.todos.bulkInsert(Array.from({ length: 9 }, (_, i) => ({ id: `n${i}`, title: String(i) })));
  await a.settle();
  const b = await open(workspace, { pull: { batchSize: 3 }, autoStart: false });
  const release = b.line.hold('pull');
  void b.replication.start();
  await eventually(() => b.line.count('pull')).toBe(1);
  await a.remove('n0');
  await a.remove('n8');
  await a.settle();
  release();
  await b.replication.awaitInitialReplication();
  expect(Object.keys(await b.titles()).sort()).toEqual(['n1', 'n2', 'n3', 'n4', 'n5', 'n6', 'n7']);
});

test('after a restore of the server its clients have what it has, and keep on', async () => {
  const workspace = newName('w');
  const a = await open(workspace);
  await a.todos.bulkInsert([{ id: 'x', title: 'x1' }, { id: 'y', title: 'y1' }]);
  await a.settle();
  await a.todos.insert({ id: 'lost', title: 'l' });
  await a.todos.insert({ id: 'lost too', title: 'l' });
  await a.edit('x', 'x2');
  await eventually(async () => (await world.log(workspace)).length).toBe(5);
  await a.settle();
  a.line.down();
  // It loses the versions above 2.
  await world.sql(`
    with key as (select workspace_key from sync_ext.workspace where workspace_id = '${workspace}'),
    gone as (delete from sync_ext.change_log using key where change_log.workspace_key = key.workspace_key and server_version > 2),
    records as (delete from sync_ext.record using key where record.workspace_key = key.workspace_key and pk like 'lost%'),
    old as (select server_version, clock, hlc, op_id from sync_ext.change_log join key using (workspace_key) where pk = 'x' and server_version <= 2),
    record as (update sync_ext.record set server_version = old.server_version, clock = old.clock, hlc = old.hlc, op_id = old.op_id
                 from key, old where record.workspace_key = key.workspace_key and pk = 'x')
    update sync_ext.workspace set head = 2 from key where workspace.workspace_key = key.workspace_key;`);
  await a.edit('lost', 'mine');
  await world.push(workspace, op('z', 'put', { id: 'z', title: 'z' }, 1), op('z', 'put', { id: 'z', title: 'z2' }, 2),
    op('u', 'put', { id: 'u', title: 'u' }, 1), op('u', 'put', { id: 'u', title: 'u2' }, 2));
  a.line.up();
  await eventually(() => a.titles()).toEqual({ x: 'x1', y: 'y1', z: 'z2', u: 'u2', lost: 'mine' });
  await eventually(() => world.records(workspace)).toMatchObject({ x: { title: 'x1' }, lost: { title: 'mine' } });
  await a.edit('x', 'x3');
  await a.settle();
  expect((await world.records(workspace)).x).toMatchObject({ title: 'x3' });
});

test('a snapshot from a server that is behind is not used', async () => {
  const workspace = newName('w');
  const a = await open(workspace);
  await a.todos.bulkInsert([{ id: 'x', title: 'milk' }, { id: 'y', title: 'tea' }]);
  await a.settle();
  a.replication.reSync();
  await a.settle();
  a.line.changeAnswer('pull', (reply) => ({ ...reply, changes: [], nextCursor: 2, requiresSnapshot: true, reason: 'cursor_expired' }));
  a.line.changeAnswer('snapshot', (reply) => ({ ...reply, items: [], highWatermark: 1, nextPageToken: null }));
  a.replication.reSync();
  await eventually(() => a.line.count('snapshot')).toBe(1);
  await a.settle();
  expect(await a.titles()).toEqual({ x: 'milk', y: 'tea' });
  expect(a.errors).toEqual([]);
});
