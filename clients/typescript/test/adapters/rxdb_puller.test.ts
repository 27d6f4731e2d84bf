import { expect, test } from 'vitest';
import { SyncError } from '../../src/error.ts';
import { type Doc, Documents } from '../../src/rxdb/document.ts';
import { type Checkpoint, Puller } from '../../src/rxdb/pull.ts';
import type { Change, PullReply, Reason, SnapshotReply } from '../../src/wire.ts';

const documents = new Documents({ primaryPath: 'id', field: 'sync', properties: ['id', 'sync'], required: ['id'] });

function change(serverVersion: number, tableName = 'todos'): Change {
  const pk = `v${serverVersion}`;
  const stamp = { clock: 1, hlc: 'h', opId: pk, deviceId: 'd' };
  return { serverVersion, tableName, pk, op: 'put', applied: true, payload: { id: pk }, stamp };
}

/** All changes up to a version. */
function reply(nextCursor: number, ...changes: Change[]): PullReply {
  return { changes, nextCursor, serverVersion: nextCursor, hasMore: false, requiresSnapshot: false, proof: `p${nextCursor}` };
}

function snapshotAt(version: number): SnapshotReply {
  const { pk, payload } = change(version);
  const item = { kind: 'row' as const, tableName: 'todos', pk, payload: payload!, revision: { clock: 1, hlc: 'h', opId: pk }, serverVersion: version };
  return { items: [item], highWatermark: version, nextPageToken: null, proof: `p${version}` };
}

function world() {
  const asked: number[] = [];
  let woken = 0;
  let head = 0;
  /** Lists one record, of its version, and all before is purged or lost. */
  let snapshot: { reason: Reason; version: number } | undefined;
  /** What RxDB has stored of the server. */
  const stored: Doc[] = [];
  const answers: (() => void)[] = [];
  const tokens: (string | null)[] = [];
  let isDown = false;
  const puller = new Puller({
    tableName: 'todos',
    documents,
    deviceId: Promise.resolve('device'),
    async call<T>(name: string, body: unknown): Promise<T> {
      const { cursor, pageToken } = body as { cursor: number; pageToken: string | null };
      if (name === 'snapshot') {
        tokens.push(pageToken);
        if (isDown) throw new SyncError('NETWORK', 'offline');
        return snapshotAt(snapshot!.version) as T;
      }
      asked.push(cursor);
      if (snapshot && cursor !== snapshot.version) return { ...reply(cursor), requiresSnapshot: true, reason: snapshot.reason } as T;
      return reply(head, ...Array.from({ length: head - cursor }, (_, i) => change(cursor + i + 1))) as T;
    },
    state: () => ({
      fork: { findDocumentsById: async (pks: string[]) => stored.filter(({ id }) => pks.includes(id)) },
      meta: {
        getChangedDocumentsSince: async (_limit: number, since?: object) => (
          { documents: since ? [] : stored.map((docData) => ({ docData })), checkpoint: {} }
        ),
      },
      replication: { lastCheckpointDoc: {} },
    }) as never,
    pushes: true,
    pushed: async () => answers.splice(0).forEach((store) => store()),
    resync: () => { woken++; },
    pulled: () => {},
  });
  return {
    puller,
    asked,
    woken: () => woken,
    setHead: (version: number) => { head = version; },
    setSnapshot: (reason: Reason, version: number) => {
      snapshot = { reason, version };
      head = version;
    },
    setDown: (value: boolean) => { isDown = value; },
    stored,
    answers,
    tokens,
    pull: async (cursor: number) => {
      const { documents, checkpoint } = await puller.pull({ cursor, proof: null, snapshot: null }, 100);
      return [documents.map(({ id }) => id), checkpoint] as [string[], Checkpoint];
    },
  };
}

test('what a stream has brought is not asked for', async () => {
  const { puller, asked, woken, pull } = world();
  puller.receive(5, reply(7, change(6), change(7, 'others')));
  puller.receive(7, reply(8, change(8)));
  expect(woken()).toBe(2);
  expect(await pull(5)).toEqual([['v6', 'v8'], { cursor: 8, proof: 'p8', snapshot: null }]);
  // RxDB has not stored it, and asks again; or has stored a part by way of a push.
  expect((await pull(5))[0]).toEqual(['v6', 'v8']);
  expect((await pull(6))[0]).toEqual(['v8']);
  expect(asked).toEqual([]);
});

test('changes that a stream did not bring are asked for', async () => {
  const { puller, asked, pull, setHead } = world();
  puller.receive(5, reply(6, change(6)));
  // The stream was another one in between.
  puller.receive(8, reply(9, change(9)));
  setHead(9);
  expect((await pull(5))[0]).toEqual(['v6', 'v7', 'v8', 'v9']);
  expect((await pull(6))[0]).toEqual(['v7', 'v8', 'v9']);
  expect((await pull(8))[0]).toEqual(['v9']);
  expect(asked).toEqual([5, 6]);
});

test('what is older than the stream is asked for', async () => {
  const { puller, asked, pull, setHead } = world();
  puller.receive(5, reply(6, change(6)));
  setHead(6);
  expect((await pull(3))[0]).toEqual(['v4', 'v5', 'v6']);
  expect(asked).toEqual([3]);
});

test('a stream that brings more than is taken is not kept', async () => {
  const { puller, asked, pull, setHead } = world();
  puller.receive(0, reply(1001, ...Array.from({ length: 1001 }, (_, i) => change(i + 1))));
  setHead(1001);
  expect((await pull(0))[0]).toHaveLength(1001);
  expect(asked).toEqual([0]);
});

test('of a record that is pulled twice before RxDB stores it, what a push has overtaken is outdated', async () => {
  const { puller } = world();
  const of = (serverVersion: number): Change => ({ ...change(serverVersion), pk: 'a', payload: { id: 'a' } });
  const next = async (cursor: number) => (await puller.pull({ cursor, proof: null, snapshot: null }, 1)).documents[0]!;
  puller.receive(5, reply(6, of(6)));
  const before = await next(5);
  puller.answered('a', 7);
  puller.receive(6, reply(8, of(8)));
  const after = await next(6);
  expect([before, after].map((doc) => puller.isOutdated(doc))).toEqual([true, false]);
});

test('a snapshot deletes what was returned before it, though RxDB has not stored it', async () => {
  const { puller, pull, setSnapshot } = world();
  puller.receive(5, reply(6, change(6)));
  expect((await puller.pull({ cursor: 5, proof: null, snapshot: null }, 1)).documents).toMatchObject([{ id: 'v6' }]);
  setSnapshot('cursor_expired', 9);
  expect((await pull(6))[0]).toEqual(['v9', 'v6']);
});

test('a snapshot deletes what is known by a push that was answered while it was read', async () => {
  const { puller, stored, answers, setSnapshot } = world();
  setSnapshot('cursor_expired', 9);
  const pushed = (id: string, version: number) => {
    stored.push({ id, _deleted: false });
    puller.answered(id, version);
  };
  answers.push(() => pushed('before', 8), () => pushed('after', 10));
  const { documents } = await puller.pull({ cursor: 6, proof: null, snapshot: null }, 100);
  expect(documents.map((doc) => [doc.id, doc._deleted, puller.isOutdated(doc)])).toEqual([
    ['v9', false, false], ['before', true, false], ['after', true, true],
  ]);
});

test('what is returned before a snapshot stays outdated, unless the server was restored', async () => {
  for (const [reason, isOutdated] of [['cursor_expired', true], ['history_diverged', false]] as const) {
    const { puller, pull, setSnapshot } = world();
    puller.receive(5, reply(6, change(6)));
    const { documents } = await puller.pull({ cursor: 5, proof: null, snapshot: null }, 1);
    puller.answered('v6', 8);
    setSnapshot(reason, 9);
    await pull(6);
    expect(puller.isOutdated(documents[0]!)).toBe(isOutdated);
  }
});

test('what a stream brought before a restore of the server is forgotten', async () => {
  const { puller, asked, pull, setSnapshot } = world();
  puller.receive(5, reply(9, change(7), change(9)));
  setSnapshot('history_diverged', 7);
  expect(await pull(9)).toEqual([['v7'], { cursor: 7, proof: 'p7', snapshot: null }]);
  expect(asked).toEqual([9, 7]);
});

test('a snapshot that begins again does not go on with a page of the one before', async () => {
  const { puller, stored, tokens, setSnapshot, setDown } = world();
  setSnapshot('cursor_expired', 9);
  stored.push({ id: 'v9', _deleted: false }, { id: 'gone', _deleted: false });
  // After a restart: the first page was stored, the second one was not.
  const checkpoint: Checkpoint = { cursor: 6, proof: null, snapshot: { reason: 'cursor_expired', token: 'second' } };
  setDown(true);
  await expect(puller.pull(checkpoint, 100)).rejects.toThrow('offline');
  setDown(false);
  const { documents } = await puller.pull(checkpoint, 100);
  expect(documents).toMatchObject([{ id: 'v9', _deleted: false }, { id: 'gone', _deleted: true }]);
  expect(tokens).toEqual([null, null]);
});
