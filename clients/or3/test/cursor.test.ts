import { afterAll, beforeAll, expect, test } from 'vitest';
import { eventOf, failureOf, op, World } from './support/world.ts';

let world: World;
beforeAll(async () => {
  world = await World.create();
});
afterAll(() => world.end());

/** A workspace with two versions, and what its devices have acknowledged. */
async function setUp() {
  const { owner, workspaceId } = await world.workspace();
  await world.push(owner, workspaceId, op('threads', 'a', {}), op('threads', 'b', {}));
  const scope = { workspaceId };
  return {
    owner,
    workspaceId,
    scope,
    update: (userId: string, deviceId: string, version: number) =>
      failureOf(world.adapter.updateCursor(eventOf(userId), { scope, deviceId, version })),
    pull: (userId: string, cursor: number, deviceId: string, tables: string[] = []) =>
      world.adapter.pull(eventOf(userId), { scope, cursor, limit: 9, tables, deviceId }),
    devices: async () => {
      const { rows } = await world.admin.query(
        `select device_id, user_id, last_seen_version::int from sync_ext.device_status
          where workspace_id = $1 order by device_id, user_id`,
        [workspaceId],
      );
      return rows.map((row) => [row.device_id, row.user_id, row.last_seen_version]);
    },
  };
}

test('a device acknowledges, for its user', async () => {
  const { owner, workspaceId, update, devices } = await setUp();
  const viewer = await world.member(workspaceId, 'viewer');
  expect(await update(owner, 'laptop', 1)).toBe('no error');
  expect(await update(owner, 'laptop', 2)).toBe('no error');
  expect(await update(owner, 'laptop', 2)).toBe('no error');
  expect(await update(viewer, 'phone', 0)).toBe('no error');
  expect(await devices()).toEqual([
    ['laptop', owner, 2],
    ['phone', viewer, 0],
  ]);
});

test('who is not a member acknowledges nothing, and takes no device id', async () => {
  const { owner, update, devices } = await setUp();
  const stranger = await world.user();
  expect(await update(stranger, 'laptop', 1)).toEqual({ code: 'not_a_member', status: 403 });
  expect(await update(owner, 'laptop', 1)).toBe('no error');
  expect(await devices()).toEqual([['laptop', owner, 1]]);
});

test('the device id of another user is refused, in this workspace', async () => {
  const { owner, workspaceId, update, devices } = await setUp();
  const editor = await world.member(workspaceId, 'editor');
  await update(owner, 'shared', 1);
  expect(await update(editor, 'shared', 2)).toEqual({
    code: 'device_of_another_user',
    status: 403,
  });
  expect(await devices()).toEqual([['shared', owner, 1]]);
  const elsewhere = await setUp();
  expect(await elsewhere.update(elsewhere.owner, 'shared', 1)).toBe('no error');
});

test('the device id of a former member can be taken', async () => {
  const { owner, workspaceId, update } = await setUp();
  const editor = await world.member(workspaceId, 'editor');
  await update(editor, 'shared', 1);
  await world.store.removeMember({ workspaceId, userId: editor });
  expect(await update(owner, 'shared', 1)).toBe('no error');
});

test('a lower version than before is refused', async () => {
  const { owner, update, devices } = await setUp();
  await update(owner, 'laptop', 2);
  expect(await update(owner, 'laptop', 1)).toEqual({ code: 'cursor_regressed', status: 409 });
  expect(await devices()).toEqual([['laptop', owner, 2]]);
});

test('a version above the head is refused', async () => {
  const { owner, update, devices } = await setUp();
  expect(await update(owner, 'laptop', 3)).toEqual({ code: 'cursor_above_head', status: 409 });
  expect(await devices()).toEqual([]);
});

test.each([
  ['laptop', -1],
  ['laptop', 0.5],
  ['laptop', NaN],
  ['', 1],
  ['x'.repeat(257), 1],
])('device id "%s" with version %s is refused', async (deviceId, version) => {
  const { owner, update } = await setUp();
  expect(await update(owner, deviceId, version)).toEqual({ code: 'invalid_request', status: 400 });
});

test('an idle device that names itself is acknowledged for', async () => {
  const { owner, pull, devices } = await setUp();
  // Not while there are changes, nor before it has any.
  await pull(owner, 0, 'laptop', ['kv']);
  await pull(owner, 1, 'laptop');
  expect(await devices()).toEqual([]);
  await pull(owner, 2, 'laptop');
  expect(await devices()).toEqual([['laptop', owner, 2]]);
  // Not from a cursor that the server never had.
  await pull(owner, 3, 'tablet');
  expect(await devices()).toEqual([['laptop', owner, 2]]);
});

test('what is acknowledged is the cursor that the device has applied', async () => {
  const { owner, pull, devices } = await setUp();
  const page = await pull(owner, 1, 'laptop', ['kv']);
  expect(page.nextCursor).toBe(2);
  expect(await devices()).toEqual([['laptop', owner, 1]]);
});

test('a pull does not fail because of its acknowledgement', async () => {
  const { owner, workspaceId, update, pull, devices } = await setUp();
  const viewer = await world.member(workspaceId, 'viewer');
  await update(owner, 'shared', 2);
  for (const [userId, cursor, device] of [
    [viewer, 2, 'shared'],
    [owner, 1, 'shared'],
    [owner, 2, 'x'.repeat(300)],
  ] as const) {
    expect(await pull(userId, cursor, device, ['kv'])).toMatchObject({
      changes: [],
      nextCursor: 2,
    });
  }
  expect(await devices()).toEqual([['shared', owner, 2]]);
});

test('a device that is acknowledged for keeps the deletes that it has not seen', async () => {
  const { owner, workspaceId, pull } = await setUp();
  await pull(owner, 2, 'laptop');
  await world.push(
    owner,
    workspaceId,
    op('threads', 'a', null, { clock: 2 }),
    op('threads', 'c', {}),
  );
  await world.purge(workspaceId);
  const { rows } = await world.admin.query("select sync_pull($1, 2) ->> 'requiresSnapshot' as r", [
    workspaceId,
  ]);
  expect(rows).toEqual([{ r: 'false' }]);
});
