import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { PendingOp } from '../src/host.ts';
import { SyncExtGatewayAdapter } from '../src/server/adapter.ts';
import { eventOf, failureOf, nobody, op, World } from './support/world.ts';

let world: World;
beforeAll(async () => {
  world = await World.create();
});
afterAll(() => world.end());

test('a push stores each op under the next version', async () => {
  const { owner, workspaceId } = await world.workspace();
  const ops = [op('threads', 't1', { id: 't1' }), op('file_meta', 'f1', { hash: 'f1' })];
  const result = await world.adapter.push(eventOf(owner), { scope: { workspaceId }, ops });
  expect(result).toEqual({
    results: ops.map(({ stamp }, i) => ({
      opId: stamp.opId,
      success: true,
      serverVersion: i + 1,
      applied: true,
      wasExisting: false,
    })),
    serverVersion: 2,
  });
  expect(await world.records(workspaceId)).toEqual(
    new Map([
      ['threads/t1', { id: 't1' }],
      ['file_meta/f1', { hash: 'f1' }],
    ]),
  );
});

test('wasExisting says whether a live record was there before', async () => {
  const { owner, workspaceId } = await world.workspace();
  const steps: Array<[PendingOp, boolean]> = [
    [op('threads', 't1', { n: 1 }), false],
    [op('threads', 't1', { n: 2 }, { clock: 2 }), true],
    [op('threads', 't1', null, { clock: 3 }), true],
    [op('threads', 't1', { n: 4 }, { clock: 4 }), false],
  ];
  for (const [step, wasExisting] of steps) {
    expect(await world.push(owner, workspaceId, step)).toMatchObject([{ wasExisting }]);
  }
});

test('an op whose reply was lost is a replay', async () => {
  const { owner, workspaceId } = await world.workspace();
  const first = op('threads', 't1', { n: 1 });
  const [answer] = await world.push(owner, workspaceId, first);
  const second = op('threads', 't2', { n: 2 });
  const [replay, next] = await world.push(owner, workspaceId, first, second);
  expect(replay).toMatchObject({ ...answer, replayed: true, wasExisting: true });
  expect(next).toMatchObject({ serverVersion: 2, applied: true });
  expect(next).not.toHaveProperty('replayed');
});

test('refusals have codes of the app and do not affect other ops', async () => {
  const { owner, workspaceId } = await world.workspace();
  const editor = await world.member(workspaceId, 'editor');
  const known = op('threads', 't0', { n: 0 });
  await world.push(owner, workspaceId, known, op('notifications', 'n1', { user_id: owner }));
  const ops = [
    op('nodes', 'x', {}),
    op('threads', 'big', { text: 'x'.repeat(300_000) }),
    op('threads', 't1', { id: 't2' }),
    { ...op('threads', 't0', { n: 1 }), stamp: known.stamp },
    op('notifications', 'n1', { user_id: owner }),
    op('notifications', 'n2', { user_id: owner }),
    op('threads', 't1', { n: 1 }, { hlc: '' }),
    op('threads', 'fine', { n: 1 }),
  ];
  const { results, serverVersion } = await world.adapter.push(eventOf(editor), {
    scope: { workspaceId },
    ops,
  });
  expect(results.map(({ errorCode }) => errorCode)).toEqual([
    'VALIDATION_ERROR',
    'VALIDATION_ERROR',
    'VALIDATION_ERROR',
    'CONFLICT',
    'UNAUTHORIZED',
    'UNAUTHORIZED',
    'VALIDATION_ERROR',
    undefined,
  ]);
  expect(results.map(({ opId }) => opId)).toEqual(ops.map(({ stamp }) => stamp.opId));
  expect(results[1]).toEqual({
    opId: ops[1]!.stamp.opId,
    success: false,
    errorCode: 'VALIDATION_ERROR',
    error: expect.stringContaining('more than sync_ext.max_payload_bytes'),
  });
  expect(results[7]).toMatchObject({ success: true, serverVersion: 3 });
  expect(serverVersion).toBe(3);
});

test('ops that lost have the winner, each with its payload', async () => {
  const { owner, workspaceId } = await world.workspace();
  await world.push(
    owner,
    workspaceId,
    op('threads', 'put', { n: 'winner' }, { clock: 5 }),
    op('threads', 'gone', null, { clock: 5 }),
  );
  const results = await world.push(
    owner,
    workspaceId,
    op('threads', 'put', { n: 1 }),
    op('threads', 'put', { n: 2 }),
    op('threads', 'gone', { n: 3 }),
  );
  const put = { kind: 'put', payload: { n: 'winner' }, revision: { clock: 5 } };
  expect(results).toMatchObject([
    { success: true, applied: false, winner: put },
    { success: true, applied: false, winner: put },
    {
      success: true,
      applied: false,
      winner: { kind: 'delete', revision: { clock: 5 }, serverDeletedAt: expect.any(Number) },
    },
  ]);
  // What the app's schemas do not know is not passed on.
  expect(Object.keys(results[0]!.winner!).sort()).toEqual(['kind', 'payload', 'revision']);
});

test('a winner of which the reply has no payload is left out', async () => {
  const { owner, workspaceId } = await world.workspace();
  const wide = { text: 'x'.repeat(100_000) };
  const pks = ['a', 'b', 'c'];
  await world.push(owner, workspaceId, ...pks.map((pk) => op('threads', pk, wide, { clock: 9 })));
  const options = '-c sync_ext.max_page_bytes=150kB';
  const narrow = new pg.Pool({ ...world.cluster.connection(world.database), options });
  const adapter = new SyncExtGatewayAdapter({ database: narrow });
  const ops = pks.map((pk) => op('threads', pk, {}));
  const { results } = await adapter.push(eventOf(owner), { scope: { workspaceId }, ops });
  await narrow.end();
  expect(results).toMatchObject(pks.map(() => ({ success: true, applied: false })));
  expect(results.map(({ winner }) => winner?.kind)).toEqual(['put', undefined, undefined]);
});

test.each([
  ['no session', nobody],
  ['no context', {} as typeof nobody],
  [
    'no authentication',
    { context: { __or3_session_context_1: { authenticated: false, user: { id: 'a' } } } },
  ],
  ['no user', { context: { __or3_session_context_1: { authenticated: true } } }],
  ['an empty user', eventOf('')],
  ['a blank user', eventOf(' ')],
  ['a user with NUL', eventOf('a\0')],
  ['a session elsewhere', { context: { session: { authenticated: true, user: { id: 'a' } } } }],
  [
    'two users',
    {
      context: {
        ...eventOf('a').context,
        __or3_session_context_2: eventOf('b').context.__or3_session_context_1_test,
      },
    },
  ],
])('%s is refused before the database is asked', async (_, event) => {
  const asked: string[] = [];
  const query = async (text: string) => {
    asked.push(text);
    return { rows: [], rowCount: 0 };
  };
  const database = { query, connect: async () => ({ query, release() {}, on() {}, off() {} }) };
  const adapter = new SyncExtGatewayAdapter({ database });
  const scope = { workspaceId: 'w' };
  const hash = { hash: 'h', mimeType: 'text/plain', sizeBytes: 1 };
  const calls = [
    adapter.push(event, { scope, ops: [op('threads', 't', {})] }),
    adapter.pull(event, { scope, cursor: 0, limit: 1 }),
    adapter.snapshot(event, { scope, pageSize: 1 }),
    adapter.updateCursor(event, { scope, deviceId: 'd', version: 0 }),
    adapter.gcTombstones(event, { scope, retentionSeconds: 3600 }),
    adapter.gcChangeLog(event, { scope, retentionSeconds: 3600 }),
    adapter.reserveUploadIntent(event, { ...hash, workspaceId: 'w', intentId: 'i', expiresAt: 1 }),
    adapter.consumeUploadIntent(event, {
      ...hash,
      workspaceId: 'w',
      intentId: 'i',
      storageId: 's',
    }),
    adapter.cancelUploadIntent(event, { workspaceId: 'w', intentId: 'i' }),
    adapter.queryCanonicalStorage(event, { scope, kind: 'live_metadata' }),
  ];
  const refused = calls.map(() => ({ code: 'no_session', status: 401 }));
  expect(await Promise.all(calls.map(failureOf))).toEqual(refused);
  expect(asked).toEqual([]);
});

test('only owners and editors push', async () => {
  const { owner, workspaceId } = await world.workspace();
  const push = async (userId: string) =>
    await failureOf(
      world.adapter.push(eventOf(userId), {
        scope: { workspaceId },
        ops: [op('threads', 't', {})],
      }),
    );
  expect(await push(owner)).toBe('no error');
  expect(await push(await world.member(workspaceId, 'editor'))).toBe('no error');
  const refused = { code: 'not_a_member', status: 403 };
  expect(await push(await world.member(workspaceId, 'viewer'))).toEqual(refused);
  expect(await push(await world.user())).toEqual(refused);
  expect(
    await failureOf(
      world.adapter.push(eventOf(owner), { scope: { workspaceId: 'none' }, ops: [] }),
    ),
  ).toEqual(refused);
  expect(
    await failureOf(world.adapter.push(eventOf(owner), { scope: { workspaceId: ' ' }, ops: [] })),
  ).toEqual({ code: 'invalid_request', status: 400 });
});

test('the user is a parameter of the one statement, and no connection keeps it', async () => {
  const { owner, workspaceId } = await world.workspace();
  const seen: unknown[] = [];
  const database = {
    connect: () => world.sync.connect(),
    query: (text: string, values?: unknown[]) => {
      seen.push([text, values]);
      return world.sync.query(text, values);
    },
  };
  const adapter = new SyncExtGatewayAdapter({ database });
  const { stamp } = op('threads', 't', null);
  const ops: PendingOp[] = [{ tableName: 'threads', operation: 'delete', pk: 't', stamp }];
  await adapter.push(eventOf(owner), { scope: { workspaceId, projectId: 'ignored' }, ops });
  expect(seen).toEqual([
    [
      "SELECT sync_push($2, $3::json) AS reply FROM set_config('sync_ext.user_id', $1, true)",
      [owner, workspaceId, JSON.stringify(ops)],
    ],
  ]);
  const { rows } = await world.sync.query("select current_setting('sync_ext.user_id') as left");
  expect(rows).toEqual([{ left: '' }]);
});

test('names are values, whatever they look like', async () => {
  const { owner, workspaceId } = await world.workspace();
  const strange = `'; select set_config('sync_ext.user_id', '', true); --"\\$1`;
  await world.push(owner, workspaceId, op('threads', strange, { id: strange }));
  expect([...(await world.records(workspaceId)).keys()]).toEqual([`threads/${strange}`]);
  expect(
    await failureOf(
      world.adapter.pull(eventOf(strange), { scope: { workspaceId }, cursor: 0, limit: 1 }),
    ),
  ).toEqual({ code: 'not_a_member', status: 403 });
});

test('of an op of the outbox only what belongs to it is passed on', async () => {
  const { owner, workspaceId } = await world.workspace();
  await world.push(owner, workspaceId, op('threads', 't1', { n: 1 }));
  // To sync_ext, these are conditions.
  const row = {
    ...op('threads', 't1', { n: 2 }, { clock: 2 }),
    expected: 'none',
    parent: 'x',
    id: 'x',
    attempts: 3,
  };
  await world.push(owner, workspaceId, row);
  expect((await world.records(workspaceId)).get('threads/t1')).toEqual({ n: 2 });
});

test('a batch that is refused as a whole is halved', async () => {
  const { owner, workspaceId } = await world.workspace();
  const deep = op('threads', 'deep', { deep: nested(20_000) });
  const ops = [
    op('threads', 'a', { n: 1 }),
    op('threads', 'b', { n: 2 }),
    deep,
    op('threads', 'c', { n: 3 }),
    op('threads', 'd', { n: 4 }),
  ];
  const { results, serverVersion } = await world.adapter.push(eventOf(owner), {
    scope: { workspaceId },
    ops,
  });
  expect(results).toMatchObject([
    { success: true, serverVersion: 1 },
    { success: true, serverVersion: 2 },
    { success: false, errorCode: 'VALIDATION_ERROR', opId: deep.stamp.opId },
    { success: true, serverVersion: 3 },
    { success: true, serverVersion: 4 },
  ]);
  expect(serverVersion).toBe(4);
});

/** Arrays in arrays. */
function nested(depth: number): unknown {
  let value: unknown = [];
  for (let i = 1; i < depth; i++) value = [value];
  return value;
}
