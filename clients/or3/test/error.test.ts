import { createServer } from 'node:net';
import { once } from 'node:events';
import { isError } from 'h3';
import pg from 'pg';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import type { Op, PushReply } from '../src/wire.ts';
import { ProviderError, toProviderError } from '../src/error.ts';
import { pushBatch } from '../src/push.ts';
import { callFor, transactionFor, type Database } from '../src/server/database.ts';
import { SyncExtGatewayAdapter } from '../src/server/adapter.ts';
import { eventOf, failureOf, op, World } from './support/world.ts';

let world: World;
beforeAll(async () => {
  world = await World.create();
});
afterAll(() => world.end());

/** What node-postgres throws. */
function raised(code: string, message = 'message', detail = 'detail'): Error {
  return Object.assign(new Error(message), { code, detail, severity: 'ERROR' });
}

test.each([
  ['SX001', 'snapshot expired', 'snapshot_expired', 410],
  ['SX002', 'standby is behind the snapshot', 'standby_behind', 503],
  ['SX003', 'version is above the head', 'cursor_above_head', 409],
  ['SX004', 'workspace is elsewhere', 'workspace_elsewhere', 503],
  ['42501', 'permission denied for workspace', 'not_a_member', 403],
  ['42501', 'permission denied for function sync_push', 'not_set_up', 500],
  ['42501', 'no user is set', 'not_set_up', 500],
  ['42883', 'function sync_push(text, json) does not exist', 'not_set_up', 500],
  ['42P01', 'relation "or3.device" does not exist', 'not_set_up', 500],
  ['3F000', 'schema "or3" does not exist', 'not_set_up', 500],
  ['42704', 'workspace does not exist', 'unknown_workspace', 404],
  ['42710', 'workspace already exists', 'already_exists', 409],
  ['23505', 'duplicate key', 'already_exists', 409],
  ['55000', 'workspace must keep an owner', 'last_owner', 409],
  ['55000', 'members are kept elsewhere', 'members_kept_elsewhere', 409],
  ['55000', 'sync_ext table is not as installed', 'tables_in_change', 503],
  ['55P03', 'rows are held by another transaction', 'busy', 503],
  ['40001', 'could not serialize access', 'busy', 503],
  ['40P01', 'deadlock detected', 'busy', 503],
  ['25006', 'read-only', 'read_only', 503],
  ['22023', 'invalid cursor', 'invalid_request', 400],
  ['22P02', 'invalid input', 'invalid_request', 400],
  ['54000', 'reply is too large', 'too_large', 413],
  ['54000', 'too many ops in one push', 'too_large', 413],
  ['54000', 'too many rows captured in one transaction', 'overloaded', 503],
  ['54000', 'too many notifications in the NOTIFY queue', 'overloaded', 503],
  ['54001', 'stack depth limit exceeded', 'too_large', 413],
  ['53200', 'out of memory', 'overloaded', 503],
  ['53300', 'too many connections', 'overloaded', 503],
  ['57014', 'canceling statement', 'unavailable', 503],
  ['57P01', 'terminating connection', 'unavailable', 503],
  ['08006', 'connection failure', 'unavailable', 503],
  ['28P01', 'password authentication failed', 'unavailable', 503],
  ['XX000', 'bug', 'internal', 500],
  ['P0001', 'of a trigger', 'internal', 500],
])('%s "%s" is %s, %s', (code, message, name, status) => {
  const error = toProviderError(raised(code, message));
  expect(error).toMatchObject({ code: name, statusCode: status, sqlState: code });
  expect(error.message).not.toContain(message === 'bug' ? 'bug' : '\n');
  // DETAIL may quote a row: only the caller's own mistakes have it.
  expect(error.data.detail).toBe(status < 500 ? 'detail' : undefined);
});

test('what is no error of the server is unavailable or internal', () => {
  const system = Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' });
  expect(toProviderError(system).code).toBe('unavailable');
  expect(toProviderError(new Error('Connection terminated unexpectedly')).code).toBe('unavailable');
  expect(toProviderError(new Error('timeout exceeded when trying to connect')).code).toBe(
    'unavailable',
  );
  expect(toProviderError(new TypeError('x is not a function')).code).toBe('internal');
  expect(toProviderError('text').code).toBe('internal');
  const named = new ProviderError('busy');
  expect(toProviderError(named)).toBe(named);
  // h3 would report others as unhandled, and Nitro hide what they say.
  expect(isError(named)).toBe(true);
});

test('a server that is not there is unavailable', async () => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  const pool = new pg.Pool({ host: '127.0.0.1', port, user: 'x', database: 'x' });
  const adapter = new SyncExtGatewayAdapter({ database: pool });
  const request = { scope: { workspaceId: 'w' }, cursor: 0, limit: 1 };
  expect(await failureOf(adapter.pull(eventOf('u'), request))).toEqual({
    code: 'unavailable',
    status: 503,
  });
  await pool.end();
});

test('a lost connection is unavailable, and the next call has another', async () => {
  const pool = new pg.Pool({ ...world.cluster.connection(world.database), max: 1 });
  pool.on('error', () => {});
  const kill = transactionFor(pool, 'u', (connection) =>
    connection.query('select pg_terminate_backend(pg_backend_pid())'),
  );
  expect(await failureOf(kill)).toEqual({ code: 'unavailable', status: 503 });
  expect(await callFor(pool, 'u', 'sync_list_workspaces()', [])).toEqual({ workspaces: [] });
  await pool.end();
});

test('a failed transaction leaves nothing on its connection', async () => {
  const pool = new pg.Pool({ ...world.cluster.connection(world.database), max: 1 });
  const fail = transactionFor(pool, 'u', async (connection) => {
    await connection.query('create table left_over ()');
    throw new ProviderError('busy');
  });
  expect(await failureOf(fail)).toEqual({ code: 'busy', status: 503 });
  const { rows } = await pool.query(
    "select to_regclass('left_over') as t, current_setting('sync_ext.user_id', true) as u",
  );
  expect(rows).toEqual([{ t: null, u: '' }]);
  await pool.end();
});

/** A database that fails as often as told. */
function failing(errors: Error[], rollbackError?: Error) {
  const asked: string[] = [];
  const release = vi.fn();
  const query = async (text: string) => {
    asked.push(text);
    if (text === 'ROLLBACK' && rollbackError) throw rollbackError;
    const isControl = /^(BEGIN|COMMIT|ROLLBACK|SELECT set_config)/.test(text);
    const error = isControl ? undefined : errors.shift();
    if (error) throw error;
    return { rows: [{ reply: 'done' }], rowCount: 1 };
  };
  const connection = { query, release, on() {}, off() {} };
  const database: Database = { query, connect: async () => connection };
  return { database, asked, release };
}

test('a connection whose transaction cannot be ended is not for others', async () => {
  const { database, release } = failing([raised('57014')], new Error('Query read timeout'));
  const call = transactionFor(database, 'u', (connection) => connection.query('SELECT f()'));
  expect(await failureOf(call)).toEqual({ code: 'unavailable', status: 503 });
  expect(release.mock.calls).toEqual([[true]]);
  const sound = failing([raised('57014')]);
  await failureOf(transactionFor(sound.database, 'u', (c) => c.query('SELECT f()')));
  expect(sound.release.mock.calls).toEqual([[]]);
});

test('another transaction that interferes is tried again, a few times', async () => {
  const passing = ['40001', '40P01', '55P03'].map((code) => raised(code));
  const call = failing([...passing]);
  expect(await callFor(call.database, 'u', 'f()', [])).toBe('done');
  expect(call.asked).toHaveLength(4);
  const transaction = failing([...passing]);
  const work = () =>
    transactionFor(
      transaction.database,
      'u',
      async (c) => (await c.query('SELECT f()')).rows[0].reply,
    );
  expect(await work()).toBe('done');
  expect(transaction.asked.filter((text) => text === 'ROLLBACK')).toHaveLength(3);
  const often = failing([...passing, raised('40001')]);
  expect(await failureOf(callFor(often.database, 'u', 'f()', []))).toEqual({
    code: 'busy',
    status: 503,
  });
  const other = failing([raised('57014')]);
  expect(await failureOf(callFor(other.database, 'u', 'f()', []))).toMatchObject({
    code: 'unavailable',
  });
  expect(other.asked).toHaveLength(1);
});

test('no call is made for an empty user', async () => {
  const { database, asked } = failing([]);
  for (const user of ['', '  ', 'a\0b', undefined as unknown as string]) {
    expect(await failureOf(callFor(database, user, 'f()', []))).toMatchObject({ status: 401 });
    expect(await failureOf(transactionFor(database, user, async () => {}))).toMatchObject({
      status: 401,
    });
  }
  expect(asked).toEqual([]);
});

/** A server that refuses whole pushes with one of these pks. */
function refusing(code: string, pks: string[], message?: string) {
  let head = 0;
  const sent: string[][] = [];
  const push = async (json: string): Promise<PushReply> => {
    const ops: Op[] = JSON.parse(json);
    sent.push(ops.map(({ pk }) => pk));
    if (ops.some(({ pk }) => pks.includes(pk))) throw raisedByUs(code, message);
    const results = ops.map(({ stamp }) => ({
      opId: stamp.opId,
      success: true as const,
      serverVersion: ++head,
      applied: true,
    }));
    return { results, serverVersion: head };
  };
  return { sent, push };
}

const raisedByUs = (code: string, message?: string) => toProviderError(raised(code, message));

test.each([
  ['22P02', 'invalid input syntax for type json'],
  ['22P05', 'unsupported Unicode escape sequence'],
  ['22021', 'invalid byte sequence'],
  ['54000', 'reply is too large'],
  ['54000', 'too many ops in one push'],
  ['54001', 'stack depth limit exceeded'],
])(
  'a push that fails with %s "%s" is halved, in order',
  async (code, message) => {
    const { sent, push } = refusing(code, ['b', 'e'], message);
    const ops = ['a', 'b', 'c', 'd', 'e'].map((pk) => op('threads', pk, {}));
    const result = await pushBatch({ scope: { workspaceId: 'w' }, ops }, push);
    expect(result.results.map(({ success }) => success)).toEqual([true, false, true, true, false]);
    expect(result.results.map(({ opId }) => opId)).toEqual(ops.map(({ stamp }) => stamp.opId));
    expect(result.results[1]).toMatchObject({ errorCode: 'VALIDATION_ERROR' });
    expect(result.serverVersion).toBe(3);
    expect(sent.filter((pks) => !pks.includes('b') && !pks.includes('e')).flat()).toEqual([
      'a',
      'c',
      'd',
    ]);
  },
);

test.each(['42501', '53200', '54000', '57014', '40001', '22023', '55000', 'SX004'])(
  'a push that fails with %s fails',
  async (code) => {
    const { sent, push } = refusing(code, ['b']);
    const ops = ['a', 'b'].map((pk) => op('threads', pk, {}));
    const call = pushBatch({ scope: { workspaceId: 'w' }, ops }, push);
    await expect(call).rejects.toMatchObject({ sqlState: code });
    expect(sent).toEqual([['a', 'b']]);
  },
);

test('an empty push that fails is not halved', async () => {
  const push = async () => Promise.reject(raisedByUs('54000', 'reply is too large'));
  await expect(pushBatch({ scope: { workspaceId: 'w' }, ops: [] }, push)).rejects.toThrow(
    'too large',
  );
});

test('every name has a text and a status', () => {
  const error = new ProviderError('cursor_regressed', { detail: 'd' });
  expect(JSON.parse(JSON.stringify(error))).toEqual({
    message: 'the device has acknowledged a higher version',
    statusCode: 409,
    statusMessage: 'the device has acknowledged a higher version',
    data: { code: 'cursor_regressed', detail: 'd' },
  });
});
