/** What the app demands of replies, beyond their types: its client stops on anything else. */
import { expect } from 'vitest';
import type {
  PullRequest,
  PullResponse,
  SnapshotRequest,
  SnapshotResponse,
} from '../../src/host.ts';

export function requirePullContract(request: PullRequest, response: PullResponse): PullResponse {
  const versions = response.changes.map(({ serverVersion }) => serverVersion);
  expect(versions).toEqual([...new Set(versions)].sort((a, b) => a - b));
  for (const version of versions) {
    expect(version).toBeGreaterThan(request.cursor);
    expect(version).toBeLessThanOrEqual(response.nextCursor);
  }
  expect(response.nextCursor).toBeGreaterThanOrEqual(request.cursor);
  if (response.hasMore) expect(response.nextCursor).toBeGreaterThan(request.cursor);
  expect(response.requiresSnapshot && response.changes.length > 0).toBe(false);
  const opIds = response.changes.map(({ stamp }) => stamp.opId);
  expect(new Set(opIds).size).toBe(opIds.length);
  for (const { stamp, op } of response.changes) {
    expect(stamp).toEqual({
      deviceId: expect.stringMatching(/./),
      opId: expect.stringMatching(/^[0-9a-f-]{36}$/),
      hlc: expect.stringMatching(/./),
      clock: expect.any(Number),
    });
    expect(['put', 'delete']).toContain(op);
  }
  expect(Object.keys(response).sort()).toEqual([
    'changes',
    'hasMore',
    'nextCursor',
    'oldestRetainedVersion',
    'requiresSnapshot',
  ]);
  return response;
}

/** In the order of JavaScript's strings, also from one page to the next. */
export function requireSnapshotContract(
  request: SnapshotRequest,
  pages: SnapshotResponse[],
): SnapshotResponse[] {
  let last = '';
  for (const page of pages) {
    expect(page.items.length).toBeLessThanOrEqual(request.pageSize);
    const { workspaceId, snapshotId, highWatermark } = pages[0]!;
    expect(page).toMatchObject({ workspaceId, snapshotId, highWatermark });
    expect(page.nextPageToken?.length ?? 0).toBeLessThanOrEqual(4096);
    for (const { kind, tableName, pk } of page.items) {
      const key = `${tableName}\0${pk}\0${kind}`;
      expect(key > last).toBe(true);
      last = key;
    }
  }
  return pages;
}
