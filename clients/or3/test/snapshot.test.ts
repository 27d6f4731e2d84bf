import { afterAll, beforeAll, expect, test } from 'vitest';
import type { SnapshotRequest, SnapshotResponse } from '../src/host.ts';
import { requireSnapshotContract } from './support/contract.ts';
import { eventOf, failureOf, op, World } from './support/world.ts';

let world: World;
beforeAll(async () => {
  world = await World.create();
});
afterAll(() => world.end());

async function pagesOf(userId: string, request: SnapshotRequest): Promise<SnapshotResponse[]> {
  const pages: SnapshotResponse[] = [];
  let pageToken: string | null = null;
  do {
    const page: SnapshotResponse = await world.adapter.snapshot(eventOf(userId), {
      ...request,
      ...(pageToken && { pageToken }),
    });
    pages.push(page);
    pageToken = page.nextPageToken;
  } while (pageToken !== null);
  return requireSnapshotContract(request, pages);
}

test('pages hold rows and tombstones in order', async () => {
  const { owner, workspaceId } = await world.workspace();
  const ops = [
    op('threads', 'b', { n: 1 }),
    op('threads', 'a', { n: 2 }),
    op('kv', 'k', { n: 3 }),
    op('threads', 'c', null, { clock: 2 }),
  ];
  await world.push(owner, workspaceId, ...ops);
  const pages = await pagesOf(owner, { scope: { workspaceId }, pageSize: 3 });
  const revision = (i: number) => {
    const { clock, hlc, opId } = ops[i]!.stamp;
    return { clock, hlc, opId };
  };
  expect(pages.map(({ items }) => items)).toEqual([
    [
      { kind: 'row', tableName: 'kv', pk: 'k', payload: { n: 3 }, revision: revision(2) },
      { kind: 'row', tableName: 'threads', pk: 'a', payload: { n: 2 }, revision: revision(1) },
      { kind: 'row', tableName: 'threads', pk: 'b', payload: { n: 1 }, revision: revision(0) },
    ],
    [
      {
        kind: 'tombstone',
        tableName: 'threads',
        pk: 'c',
        revision: revision(3),
        serverDeletedAt: expect.any(Number),
      },
    ],
  ]);
  expect(pages[0]).toMatchObject({ workspaceId, highWatermark: 4 });
  expect(Object.keys(pages[0]!).sort()).toEqual([
    'highWatermark',
    'items',
    'nextPageToken',
    'snapshotId',
    'workspaceId',
  ]);
});

test('items of a page are in the order of UTF-16, which is not that of bytes', async () => {
  const { owner, workspaceId } = await world.workspace();
  // By bytes U+FF5E comes before U+1F418, by UTF-16 after its first half, U+D83D.
  const pks = ['~', '\u{1f418}', '\uff5e', 'é'];
  await world.push(owner, workspaceId, ...pks.map((pk) => op('kv', pk, {})));
  const [page] = await pagesOf(owner, { scope: { workspaceId }, pageSize: 9 });
  expect(page!.items.map(({ pk }) => pk)).toEqual(['~', 'é', '\u{1f418}', '\uff5e']);
});

test('the longest key fits into the token of a page', async () => {
  const { owner, workspaceId } = await world.workspace();
  const pks = ['a', 'b'].map((letter) => letter.repeat(1024));
  await world.push(owner, workspaceId, ...pks.map((pk) => op('threads', pk, {})));
  const pages = await pagesOf(owner, { scope: { workspaceId }, pageSize: 1 });
  expect(pages.length).toBe(2);
});

test('a filter of tables holds for the whole snapshot', async () => {
  const { owner, event, workspaceId } = await world.workspace();
  await world.push(
    owner,
    workspaceId,
    op('threads', 'a', {}),
    op('threads', 'b', {}),
    op('kv', 'c', {}),
  );
  const request = { scope: { workspaceId }, pageSize: 1, tables: ['threads'] };
  const pages = await pagesOf(owner, request);
  expect(pages.flatMap(({ items }) => items.map(({ pk }) => pk))).toEqual(['a', 'b']);
  const pageToken = pages[0]!.nextPageToken!;
  const { tables: _, ...other } = { ...request, pageToken };
  const refused = { code: 'invalid_request', status: 400 };
  expect(await failureOf(world.adapter.snapshot(event, other))).toEqual(refused);
  expect(await failureOf(world.adapter.snapshot(event, { ...request, pageToken: 'x' }))).toEqual(
    refused,
  );
});

test.each([0, 1001, 1.5, NaN])('the page size %s is refused', async (pageSize) => {
  const { event, workspaceId } = await world.workspace();
  const request = { scope: { workspaceId }, pageSize };
  expect(await failureOf(world.adapter.snapshot(event, request))).toEqual({
    code: 'invalid_request',
    status: 400,
  });
});

test('a snapshot whose history is purged meanwhile has expired', async () => {
  const { owner, event, workspaceId } = await world.workspace();
  await world.push(owner, workspaceId, op('threads', 'a', {}), op('threads', 'b', {}));
  const request = { scope: { workspaceId }, pageSize: 1 };
  const { nextPageToken } = await world.adapter.snapshot(event, request);
  await world.push(
    owner,
    workspaceId,
    op('threads', 'a', null, { clock: 2 }),
    op('threads', 'c', {}),
  );
  await world.purge(workspaceId);
  const next = world.adapter.snapshot(event, { ...request, pageToken: nextPageToken! });
  expect(await failureOf(next)).toEqual({ code: 'snapshot_expired', status: 410 });
});
