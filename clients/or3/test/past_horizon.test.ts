import { afterAll, beforeAll, expect, test } from 'vitest';
import type { PullRequest, PullResponse, SyncChange } from '../src/host.ts';
import { requirePullContract } from './support/contract.ts';
import { eventOf, op, World } from './support/world.ts';

let world: World;
beforeAll(async () => {
  world = await World.create();
});
afterAll(() => world.end());

/** All pages from a cursor on. */
async function pullAll(
  userId: string,
  workspaceId: string,
  cursor: number,
  options: Partial<PullRequest> = {},
): Promise<{ changes: SyncChange[]; pages: PullResponse[]; cursor: number }> {
  const pages: PullResponse[] = [];
  let hasMore = true;
  while (hasMore) {
    const request = { scope: { workspaceId }, cursor, limit: 100, ...options };
    const page = requirePullContract(request, await world.adapter.pull(eventOf(userId), request));
    pages.push(page);
    ({ nextCursor: cursor, hasMore } = page);
  }
  return { changes: pages.flatMap(({ changes }) => changes), pages, cursor };
}

const told = ({ pk, op, payload }: SyncChange) => [pk, op, payload];

/** b and d are deleted and purged; version 9 keeps the head. */
async function purgedWorkspace() {
  const { owner, workspaceId } = await world.workspace();
  const ops = [
    op('threads', 'a', { n: 1 }),
    op('threads', 'b', { n: 2 }),
    op('messages', 'c', { n: 3 }),
    op('messages', 'd', { n: 4 }),
    op('threads', 'a', { n: 5 }, { clock: 2 }),
    op('threads', 'b', null, { clock: 2 }),
    op('messages', 'd', null, { clock: 2 }),
    op('notifications', 'n', null, { clock: 1 }),
    op('threads', 'e', { n: 9 }),
  ];
  await world.push(owner, workspaceId, ...ops);
  await world.purge(workspaceId);
  const { rows } = await world.admin.query('select sync_pull($1, 0) ->> $2 as reason', [
    workspaceId,
    'reason',
  ]);
  expect(rows).toEqual([{ reason: 'cursor_expired' }]);
  return { owner, workspaceId, ops };
}

test('a new device gets everything, and purged deletes as deletes', async () => {
  const { owner, workspaceId, ops } = await purgedWorkspace();
  const { changes, pages, cursor } = await pullAll(owner, workspaceId, 0);
  expect(changes.map(told)).toEqual([
    ['c', 'put', { n: 3 }],
    ['a', 'put', { n: 5 }],
    ['b', 'delete', undefined],
    ['d', 'delete', undefined],
    ['n', 'delete', undefined],
    ['e', 'put', { n: 9 }],
  ]);
  const { clock, hlc, opId } = ops[5]!.stamp;
  expect(changes[2]).toEqual({
    serverVersion: 6,
    tableName: 'threads',
    pk: 'b',
    op: 'delete',
    stamp: { clock, hlc, opId, deviceId: '$server' },
  });
  expect(cursor).toBe(9);
  expect(pages).toMatchObject([{ requiresSnapshot: false, oldestRetainedVersion: 1 }]);
});

test('a returning device gets only what it has not seen', async () => {
  const { owner, workspaceId } = await purgedWorkspace();
  const { changes, pages } = await pullAll(owner, workspaceId, 4);
  expect(changes.map(({ pk, op }) => `${op} ${pk}`)).toEqual([
    'put a',
    'delete b',
    'delete d',
    'delete n',
    'put e',
  ]);
  // The app: a cursor below the oldest version - 1 needs a snapshot.
  expect(pages).toMatchObject([{ requiresSnapshot: false, oldestRetainedVersion: 5 }]);
});

test('it comes in pages, and goes on by plain pulls above the horizon', async () => {
  const { owner, workspaceId } = await purgedWorkspace();
  const { changes, pages } = await pullAll(owner, workspaceId, 0, { limit: 2 });
  expect(pages.map(({ changes, hasMore }) => [changes.length, hasMore])).toEqual([
    [2, true],
    [2, true],
    [2, false],
  ]);
  expect(changes.map(({ pk }) => pk)).toEqual(['c', 'a', 'b', 'd', 'n', 'e']);
  const whole = await pullAll(owner, workspaceId, 0, { limit: NaN });
  expect(whole.changes).toEqual(changes);
});

test('what is written between two pages is in a later one', async () => {
  const { owner, workspaceId } = await purgedWorkspace();
  const request = { scope: { workspaceId }, cursor: 0, limit: 2 };
  const first = await world.adapter.pull(eventOf(owner), request);
  expect(first.changes.map(({ pk }) => pk)).toEqual(['c', 'a']);
  // One that was listed, one that would have been, and a new one.
  await world.push(
    owner,
    workspaceId,
    op('messages', 'c', null, { clock: 2 }),
    op('threads', 'e', { n: 11 }, { clock: 2 }),
    op('threads', 'f', { n: 12 }),
  );
  const rest = await pullAll(owner, workspaceId, first.nextCursor, { limit: 2 });
  expect(rest.changes.map(told)).toEqual([
    ['b', 'delete', undefined],
    ['d', 'delete', undefined],
    ['n', 'delete', undefined],
    ['c', 'delete', undefined],
    ['e', 'put', { n: 11 }],
    ['f', 'put', { n: 12 }],
  ]);
  expect(rest.cursor).toBe(12);
});

test('filters and privacy hold there too', async () => {
  const { owner, workspaceId } = await purgedWorkspace();
  const viewer = await world.member(workspaceId, 'viewer');
  const messages = await pullAll(owner, workspaceId, 0, { tables: ['messages'] });
  expect(messages.changes.map(({ pk }) => pk)).toEqual(['c', 'd']);
  expect(messages.cursor).toBe(9);
  const others = await pullAll(viewer, workspaceId, 0);
  expect(others.changes.map(({ pk }) => pk)).toEqual(['c', 'a', 'b', 'd', 'e']);
  expect(others.cursor).toBe(9);
});

test('a device at the horizon pulls as ever', async () => {
  const { owner, workspaceId } = await purgedWorkspace();
  const { changes, pages } = await pullAll(owner, workspaceId, 8);
  expect(changes.map(({ pk }) => pk)).toEqual(['e']);
  expect(pages).toMatchObject([{ oldestRetainedVersion: 9 }]);
});
