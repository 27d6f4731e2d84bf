import { afterAll, beforeAll, expect, test } from 'vitest';
import type { PullRequest, PullResponse } from '../src/host.ts';
import { requirePullContract } from './support/contract.ts';
import { eventOf, failureOf, op, World } from './support/world.ts';

let world: World;
beforeAll(async () => {
  world = await World.create();
});
afterAll(() => world.end());

async function pull(userId: string, request: PullRequest): Promise<PullResponse> {
  return requirePullContract(request, await world.adapter.pull(eventOf(userId), request));
}

test('pages follow each other and end at the head', async () => {
  const { owner, workspaceId } = await world.workspace();
  const ops = Array.from({ length: 5 }, (_, i) => op('threads', `t${i}`, { n: i }));
  await world.push(owner, workspaceId, ...ops);
  const scope = { workspaceId, projectId: 'ignored' };
  const seen = [];
  let page: PullResponse;
  let cursor = 0;
  do {
    page = await pull(owner, { scope, cursor, limit: 2 });
    seen.push(page.changes.length);
    cursor = page.nextCursor;
  } while (page.hasMore);
  expect(seen).toEqual([2, 2, 1]);
  expect(cursor).toBe(5);
  expect(page.changes[0]).toEqual({
    serverVersion: 5,
    tableName: 'threads',
    pk: 't4',
    op: 'put',
    payload: { n: 4 },
    stamp: ops[4]!.stamp,
  });
  expect(page).toMatchObject({ requiresSnapshot: false, oldestRetainedVersion: 1 });
});

test('each record comes once, in its current state, without what lost', async () => {
  const { owner, workspaceId } = await world.workspace();
  await world.push(
    owner,
    workspaceId,
    op('threads', 'a', { n: 1 }),
    op('threads', 'a', { n: 2 }, { clock: 2 }),
    op('threads', 'b', { n: 3 }, { clock: 2 }),
    op('threads', 'b', { n: 4 }, { clock: 1 }),
    op('threads', 'c', { n: 5 }),
    op('threads', 'c', null, { clock: 2 }),
  );
  const { changes, nextCursor } = await pull(owner, {
    scope: { workspaceId },
    cursor: 0,
    limit: 9,
  });
  expect(changes.map(({ pk, op, payload }) => [pk, op, payload])).toEqual([
    ['a', 'put', { n: 2 }],
    ['b', 'put', { n: 3 }],
    ['c', 'delete', undefined],
  ]);
  expect(nextCursor).toBe(6);
});

test('a filter of tables leaves others out, and the cursor still reaches the head', async () => {
  const { owner, workspaceId } = await world.workspace();
  await world.push(owner, workspaceId, op('threads', 'a', {}), op('messages', 'b', {}));
  const scope = { workspaceId };
  const pks = async (tables: string[]) => {
    const page = await pull(owner, { scope, cursor: 0, limit: 9, tables });
    expect(page.nextCursor).toBe(2);
    return page.changes.map(({ pk }) => pk);
  };
  expect(await pks(['threads'])).toEqual(['a']);
  expect(await pks(['kv', 'posts'])).toEqual([]);
  expect(await pks([])).toEqual(['a', 'b']);
});

test.each([
  [NaN, 100],
  [Infinity, 100],
  [undefined as unknown as number, 100],
  ['7' as unknown as number, 100],
  [0, 1],
  [-3, 1],
  [1.5, 1],
  [1e300, 120],
])('the limit %s is one of %s', async (limit, changes) => {
  const { owner, workspaceId } = await world.workspace();
  const ops = Array.from({ length: 120 }, (_, i) => op('threads', `t${i}`, {}));
  await world.push(owner, workspaceId, ...ops);
  const page = await pull(owner, { scope: { workspaceId }, cursor: 0, limit });
  expect(page.changes.length).toBe(changes);
});

test.each([-1, 0.5, NaN, 2 ** 53, '0; drop table x' as unknown as number])(
  'the cursor %s is refused',
  async (cursor) => {
    const { event, workspaceId } = await world.workspace();
    expect(
      await failureOf(world.adapter.pull(event, { scope: { workspaceId }, cursor, limit: 1 })),
    ).toEqual({ code: 'invalid_request', status: 400 });
  },
);

test('viewers pull, others do not', async () => {
  const { workspaceId } = await world.workspace();
  const request = { scope: { workspaceId }, cursor: 0, limit: 1 };
  await pull(await world.member(workspaceId, 'viewer'), request);
  const refused = { code: 'not_a_member', status: 403 };
  expect(await failureOf(pull(await world.user(), request))).toEqual(refused);
});

test('notifications are shown to nobody but their user', async () => {
  const { owner, workspaceId } = await world.workspace();
  const viewer = await world.member(workspaceId, 'viewer');
  const editor = await world.member(workspaceId, 'editor');
  await world.push(
    owner,
    workspaceId,
    op('notifications', 'n1', { id: 'n1', user_id: owner }),
    op('notifications', 'n2', { id: 'n2' }),
    op('notifications', 'n3', { id: 'n3' }),
    op('notifications', 'n3', null, { clock: 2 }),
  );
  await world.push(editor, workspaceId, op('notifications', 'n4', {}));
  const scope = { workspaceId };
  const seen = async (userId: string) => {
    const page = await pull(userId, { scope, cursor: 0, limit: 9 });
    expect(page.nextCursor).toBe(5);
    const { items } = await world.adapter.snapshot(eventOf(userId), { scope, pageSize: 9 });
    expect(items.map(({ pk }) => pk)).toEqual(page.changes.map(({ pk }) => pk));
    return page.changes.map(({ pk, op, payload }) => [pk, op, payload]);
  };
  expect(await seen(owner)).toEqual([
    ['n1', 'put', { id: 'n1', user_id: owner }],
    // Without an owner it is that of its author.
    ['n2', 'put', { id: 'n2', user_id: owner }],
    ['n3', 'delete', undefined],
  ]);
  expect(await seen(editor)).toEqual([['n4', 'put', { user_id: editor }]]);
  expect(await seen(viewer)).toEqual([]);
});

test('a restored or dropped workspace is left to the client', async () => {
  const { owner, workspaceId } = await world.workspace();
  await world.push(owner, workspaceId, op('threads', 'a', {}));
  expect(await pull(owner, { scope: { workspaceId }, cursor: 9, limit: 5 })).toEqual({
    changes: [],
    nextCursor: 9,
    hasMore: false,
    oldestRetainedVersion: 1,
    requiresSnapshot: true,
  });
});
