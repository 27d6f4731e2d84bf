import { afterAll, beforeAll, expect, test } from 'vitest';
import type { CanonicalStorageQueryRequest, CanonicalStorageRecord } from '../src/host.ts';
import { eventOf, failureOf, op, World } from './support/world.ts';

let world: World;
beforeAll(async () => {
  world = await World.create();
});
afterAll(() => world.end());

type Query = Omit<CanonicalStorageQueryRequest, 'scope'>;

/** All pages of a query, and their sizes. */
async function all(userId: string, workspaceId: string, query: Query) {
  const items: CanonicalStorageRecord[] = [];
  const sizes: number[] = [];
  let cursor: string | undefined;
  do {
    const page = await world.adapter.queryCanonicalStorage(eventOf(userId), {
      scope: { workspaceId },
      ...query,
      ...(cursor !== undefined && { cursor }),
    });
    items.push(...page.items);
    sizes.push(page.items.length);
    cursor = page.nextCursor;
    expect(page.hasMore).toBe(cursor !== undefined);
  } while (cursor !== undefined);
  return { items, sizes };
}

test('live metadata is that of the files that are there', async () => {
  const { owner, workspaceId } = await world.workspace();
  const files = Array.from({ length: 230 }, (_, i) =>
    op('file_meta', `sha256:${String(i).padStart(3, '0')}`, { size_bytes: i, storage_id: `s${i}` }),
  );
  await world.push(owner, workspaceId, ...files);
  await world.push(
    owner,
    workspaceId,
    op('file_meta', 'sha256:000', null, { clock: 2 }),
    op('file_meta', 'sha256:001', { size_bytes: 'many' }, { clock: 2 }),
    op('file_meta', 'sha256:002', { sizeBytes: 7, text: 'nul: \0' }, { clock: 2 }),
  );
  const { items, sizes } = await all(owner, workspaceId, { kind: 'live_metadata', limit: 114 });
  expect(sizes).toEqual([114, 114]);
  expect(items[0]).toEqual({
    kind: 'metadata',
    hash: '002',
    sizeBytes: 7,
    updatedAt: expect.any(Number),
  });
  expect(items[1]).toMatchObject({ hash: '003', sizeBytes: 3, storageId: 's3' });
  const one = await all(owner, workspaceId, { kind: 'live_metadata', hash: 'SHA256:229' });
  expect(one.items).toMatchObject([{ hash: '229', sizeBytes: 229 }]);
});

test('references are those of live messages and posts, in whatever form', async () => {
  const { owner, workspaceId } = await world.workspace();
  await world.push(
    owner,
    workspaceId,
    op('messages', 'm1', { file_hashes: JSON.stringify(['sha256:B', 'sha256:a', 'a']) }),
    op('messages', 'm2', { file_hashes: ['sha256:a', 7, null], nul: '\0' }),
    op('messages', 'm3', { file_hashes: 'not json' }),
    op('messages', 'm4', { text: 'file_hashes' }),
    op('messages', 'm5', { file_hashes: ['gone'] }),
    op('messages', 'm5', null, { clock: 2 }),
    op('posts', 'p1', { file_hashes: ['c', 'a'] }),
    op('kv', 'k1', { file_hashes: ['a'] }),
  );
  const edges = [
    ['messages', 'm1', 'a'],
    ['messages', 'm1', 'b'],
    ['messages', 'm2', 'a'],
    ['posts', 'p1', 'a'],
    ['posts', 'p1', 'c'],
  ];
  for (const limit of [1, 2, 3, 100, NaN]) {
    const { items } = await all(owner, workspaceId, { kind: 'reference_edges', limit });
    expect(items).toEqual(
      edges.map(([sourceTable, sourceId, hash]) => ({
        kind: 'reference',
        hash,
        sourceTable,
        sourceId,
      })),
    );
  }
  for (const limit of [1, 100]) {
    const { items } = await all(owner, workspaceId, {
      kind: 'reference_edges',
      hash: 'sha256:A',
      limit,
    });
    expect(items.map((item) => item.kind === 'reference' && item.sourceId)).toEqual([
      'm1',
      'm2',
      'p1',
    ]);
  }
});

test('reservations are those that are active', async () => {
  const { owner, event, workspaceId } = await world.workspace();
  const expiresAt = Math.floor(Date.now() / 1000) + 600;
  for (const [intentId, hash] of [
    ['i1', 'a'],
    ['i2', 'b'],
    ['i3', 'a'],
    ['i4', 'c'],
  ] as const) {
    await world.adapter.reserveUploadIntent(event, {
      intentId,
      workspaceId,
      hash,
      mimeType: 'm',
      sizeBytes: 5,
      expiresAt,
    });
  }
  await world.adapter.cancelUploadIntent(event, { workspaceId, intentId: 'i4' });
  // The third reserves nothing: a file of its hash is expected anyway.
  const { items, sizes } = await all(owner, workspaceId, { kind: 'active_reservations', limit: 1 });
  expect(sizes).toEqual([1, 1]);
  expect(items).toEqual(
    ['i1', 'i2'].map((reservationId, i) => ({
      kind: 'reservation',
      reservationId,
      hash: 'ab'[i],
      sizeBytes: 5,
      expiresAt,
    })),
  );
  const later = await all(owner, workspaceId, { kind: 'active_reservations', now: expiresAt });
  expect(later.items).toEqual([]);
});

test('a cursor belongs to its query', async () => {
  const { owner, event, workspaceId } = await world.workspace();
  const scope = { workspaceId };
  await world.push(
    owner,
    workspaceId,
    op('file_meta', 'a', { size_bytes: 1 }),
    op('file_meta', 'b', { size_bytes: 1 }),
  );
  const query = { scope, kind: 'live_metadata', limit: 1 } as const;
  const { nextCursor } = await world.adapter.queryCanonicalStorage(event, query);
  const cursor = nextCursor!;
  for (const other of [
    { ...query, kind: 'reference_edges' as const, cursor },
    { ...query, hash: 'a', cursor },
    { ...query, cursor: 'x' },
    { ...query, cursor: Buffer.from('["live_metadata",null,7]').toString('base64url') },
    { ...query, hash: 'sha256:' },
    { ...query, kind: 'constructor' as 'live_metadata' },
  ]) {
    expect(await failureOf(world.adapter.queryCanonicalStorage(event, other))).toEqual({
      code: 'invalid_request',
      status: 400,
    });
  }
});

test('members ask, others do not', async () => {
  const { workspaceId } = await world.workspace();
  const query = { kind: 'live_metadata' } as const;
  expect(await all(await world.member(workspaceId, 'viewer'), workspaceId, query)).toMatchObject({
    items: [],
  });
  expect(await failureOf(all(await world.user(), workspaceId, query))).toEqual({
    code: 'not_a_member',
    status: 403,
  });
});
