import { expect, test } from 'vitest';
import { MemoryStore } from '../src/store/memory.ts';
import { Sync } from '../src/sync.ts';

test('stores with a fetch of their own have a stream of their own', async () => {
  const asked = [0, 0];
  const syncs = asked.map((_, i) => {
    const fetch = async (input: unknown) => {
      const url = String(input);
      if (url.includes('/live?')) {
        asked[i]!++;
        return new Response(new ReadableStream());
      }
      return Response.json({ changes: [], nextCursor: 0, serverVersion: 0, hasMore: false, requiresSnapshot: false, proof: null });
    };
    const options = { url: 'http://gateway', workspace: `w${i}`, tables: [], fetch: fetch as typeof globalThis.fetch };
    return new Sync(options, () => new MemoryStore(`own-fetch-${i}`));
  });
  try {
    await Promise.all(syncs.map((sync) => sync.start()));
    await expect.poll(() => asked).toEqual([1, 1]);
  } finally {
    for (const sync of syncs) sync.stop();
  }
});
