import { createHmac } from 'node:crypto';
import { createServer, type Server, type ServerResponse } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest';
import type { Gateway } from '../../support/cluster.ts';
import type { SyncProvider } from '../src/host.ts';
import { createDirectSyncProvider } from '../src/client/direct.ts';
import { eventsOf } from '../src/client/events.ts';
import { RequestError } from '../src/client/request.ts';
import { requirePullContract, requireSnapshotContract } from './support/contract.ts';
import { Following } from './support/following.ts';
import { op, World } from './support/world.ts';

const secret = 'a secret of at least thirty-two bytes';
let world: World;
let gateway: Gateway;
const providers: SyncProvider[] = [];
const servers: Server[] = [];

beforeAll(async () => {
  world = await World.create();
  gateway = await world.cluster.startGateway(world.database, {
    user: 'or3_sync',
    env: { GATEWAY_JWT_SECRET: secret },
  });
});
afterEach(async () => {
  await Promise.all(providers.splice(0).map((provider) => provider.dispose()));
  for (const server of servers.splice(0)) {
    server.close();
    server.closeAllConnections();
  }
});
afterAll(() => world.end());

/** A token for a user, as an issuer would sign it. */
function tokenOf(user: string, key = secret): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const content = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ sub: user, exp: Math.floor(Date.now() / 1000) + 600 })}`;
  return `${content}.${createHmac('sha256', key).update(content).digest('base64url')}`;
}

function providerOf(user: string, options = {}): SyncProvider {
  const provider = createDirectSyncProvider({
    url: `${gateway.url}/`,
    headers: async () => ({ authorization: `Bearer ${tokenOf(user)}` }),
    reconnectIntervalMs: 1,
    ...options,
  });
  providers.push(provider);
  return provider;
}

async function refusal(call: Promise<unknown>): Promise<[number, string | undefined]> {
  const error = (await call.catch((caught) => caught)) as RequestError;
  expect(error).toBeInstanceOf(RequestError);
  return [error.statusCode, error.sqlState];
}

test('calls reach sync_ext, and replies are those of the app', async () => {
  const { owner, workspaceId } = await world.workspace();
  const provider = providerOf(owner);
  const scope = { workspaceId };
  const first = op('threads', 'a', { n: 1 });
  const { results } = await provider.push({
    scope,
    ops: [
      first,
      op('threads', 'a', { n: 0 }),
      op('nodes', 'x', {}),
      op('threads', 'b', { text: 'x'.repeat(300_000) }),
    ].map((one, i) => (i === 1 ? { ...one, stamp: { ...one.stamp, hlc: '0' } } : one)),
  });
  expect(results).toMatchObject([
    { success: true, serverVersion: 1, applied: true, wasExisting: false },
    { success: true, applied: false, winner: { kind: 'put', payload: { n: 1 } } },
    { success: false, errorCode: 'VALIDATION_ERROR' },
    { success: false, errorCode: 'VALIDATION_ERROR' },
  ]);
  for (const limit of [NaN, 5]) {
    const request = { scope, cursor: 0, limit };
    const page = requirePullContract(request, await provider.pull(request));
    expect(page).toMatchObject({ changes: [{ pk: 'a', payload: { n: 1 } }], nextCursor: 2 });
  }
  const pks = ['\u{1f418}', '\uff5e'];
  await provider.push({ scope, ops: pks.map((pk) => op('kv', pk, {})) });
  const request = { scope, pageSize: 10, tables: ['kv'] };
  const page = await provider.snapshot!(request);
  requireSnapshotContract(request, [page]);
  expect(page.items.map(({ pk }) => pk)).toEqual(pks);
  await provider.updateCursor(scope, 'laptop', 4);
});

test('failures have their status and SQLSTATE', async () => {
  const { owner, workspaceId } = await world.workspace();
  const scope = { workspaceId };
  const request = { scope, cursor: 0, limit: 1 };
  expect(await refusal(providerOf(await world.user()).pull(request))).toEqual([403, '42501']);
  const forged = { headers: () => ({ authorization: `Bearer ${tokenOf(owner, 'x'.repeat(40))}` }) };
  expect(await refusal(providerOf(owner, forged).pull(request))).toEqual([401, '28000']);
  expect(await refusal(providerOf(owner, { headers: () => ({}) }).pull(request))).toEqual([
    401,
    '28000',
  ]);
  expect(await refusal(providerOf(owner).updateCursor(scope, 'd', 9))).toEqual([409, 'SX003']);
});

test('a workspace id is one part of the path, whatever is in it', async () => {
  const { owner } = await world.workspace();
  const workspaceId = 'a/../b?c#d %2f';
  await world.admin.query('select sync_create_workspace($1, $2)', [workspaceId, owner]);
  const provider = providerOf(owner);
  const scope = { workspaceId };
  await provider.push({ scope, ops: [op('threads', 'a', {})] });
  const following = await Following.start(provider, scope);
  expect(await following.until(1)).toMatchObject([{ pk: 'a' }]);
});

test('a batch that the gateway refuses as a whole is halved', async () => {
  const { owner, workspaceId } = await world.workspace();
  const small = await world.cluster.startGateway(world.database, {
    user: 'or3_sync',
    env: { GATEWAY_JWT_SECRET: secret, GATEWAY_MAX_BODY_BYTES: '2000' },
  });
  const provider = providerOf(owner, { url: small.url });
  const ops = [
    op('threads', 'a', {}),
    op('threads', 'big', { text: 'x'.repeat(3000) }),
    op('threads', 'c', {}),
  ];
  const { results } = await provider.push({ scope: { workspaceId }, ops });
  await small.stop();
  expect(results).toMatchObject([
    { success: true, serverVersion: 1 },
    { success: false, errorCode: 'VALIDATION_ERROR' },
    { success: true, serverVersion: 2 },
  ]);
});

test('a stream brings what others push, in order and once', async () => {
  const { owner, workspaceId } = await world.workspace();
  const editor = await world.member(workspaceId, 'editor');
  await world.push(
    owner,
    workspaceId,
    op('threads', 'a', {}),
    op('threads', 'b', {}),
    op('kv', 'c', {}),
  );
  const following = await Following.start(
    providerOf(owner),
    { workspaceId },
    ['threads', 'notifications'],
    1,
    1,
  );
  await following.until(1);
  await world.push(
    editor,
    workspaceId,
    op('kv', 'd', {}),
    op('threads', 'e', {}),
    op('notifications', 'n', {}),
  );
  await world.push(editor, workspaceId, op('threads', 'f', {}));
  const changes = await following.until(3);
  expect(changes.map(({ pk, serverVersion }) => [pk, serverVersion])).toEqual([
    ['b', 2],
    ['e', 5],
    ['f', 7],
  ]);
  expect(changes[0]).toEqual({
    serverVersion: 2,
    tableName: 'threads',
    pk: 'b',
    op: 'put',
    payload: {},
    stamp: expect.any(Object),
  });
});

test('a stream brings each record once, as it is', async () => {
  const { owner, workspaceId } = await world.workspace();
  await world.push(
    owner,
    workspaceId,
    op('threads', 'a', { n: 1 }),
    op('threads', 'a', { n: 2 }, { clock: 2 }),
    op('threads', 'a', { n: 0 }, { clock: 1 }),
    op('threads', 'b', {}),
  );
  const following = await Following.start(providerOf(owner), { workspaceId });
  expect(await following.until(2)).toMatchObject([
    { pk: 'a', payload: { n: 2 } },
    { pk: 'b', serverVersion: 4 },
  ]);
});

test('a stream that ends is opened again where it was', async () => {
  const { owner, workspaceId } = await world.workspace();
  const brief = await world.cluster.startGateway(world.database, {
    user: 'or3_sync',
    env: { GATEWAY_JWT_SECRET: secret, GATEWAY_STREAM_AGE: '0.05' },
  });
  const opened: string[] = [];
  const openings = new EventTarget();
  const watched: typeof fetch = (input, init) => {
    const { pathname, searchParams } = new URL(String(input));
    if (pathname.endsWith('/live')) {
      opened.push(searchParams.get('cursor')!);
      openings.dispatchEvent(new Event('opened'));
    }
    return fetch(input, init);
  };
  const provider = providerOf(owner, { url: brief.url, fetch: watched });
  const following = await Following.start(provider, { workspaceId });
  for (let n = 1; n <= 4; n++) {
    const again = new Promise((resolve) =>
      openings.addEventListener('opened', resolve, { once: true }),
    );
    await world.push(owner, workspaceId, op('threads', `t${n}`, {}));
    await following.until(n);
    await again;
  }
  await brief.stop();
  expect(following.changes.map(({ serverVersion }) => serverVersion)).toEqual([1, 2, 3, 4]);
  expect(opened[0]).toBe('0');
  expect(Number(opened.at(-1))).toBeGreaterThan(0);
});

test('changes that could not be applied come again', async () => {
  const { owner, workspaceId } = await world.workspace();
  const errors: unknown[] = [];
  const provider = providerOf(owner, { onError: (error: unknown) => errors.push(error) });
  const following = await Following.start(provider, { workspaceId });
  following.failure = new Error('the disk is full');
  await world.push(owner, workspaceId, op('threads', 'a', {}));
  expect(await following.until(1)).toMatchObject([{ serverVersion: 1 }]);
  expect(errors).toEqual([new Error('the disk is full')]);
});

test('a member who is removed is told, and nothing is followed any more', async () => {
  const { owner, workspaceId } = await world.workspace();
  const viewer = await world.member(workspaceId, 'viewer');
  const told = new Promise<CustomEvent>((resolve) => {
    vi.stubGlobal('dispatchEvent', (event: CustomEvent) => {
      resolve(event);
      return true;
    });
  });
  const following = await Following.start(providerOf(viewer), { workspaceId });
  await world.push(owner, workspaceId, op('threads', 'a', {}));
  await following.until(1);
  await world.store.removeMember({ workspaceId, userId: viewer });
  await world.push(owner, workspaceId, op('threads', 'b', {}));
  expect((await told).detail).toEqual({ status: 403, workspaceId });
  vi.unstubAllGlobals();
  expect(following.changes).toHaveLength(1);
});

test('a cursor below the horizon is answered by requiresSnapshot', async () => {
  const { owner, workspaceId } = await world.workspace();
  await world.push(
    owner,
    workspaceId,
    op('threads', 'a', {}),
    op('threads', 'a', null, { clock: 2 }),
    op('threads', 'b', { n: 1 }),
  );
  await world.purge(workspaceId);
  const scope = { workspaceId };
  const required = new Promise((resolve) => {
    void Following.start(providerOf(owner, { onSnapshotRequired: resolve }), scope);
  });
  expect(await required).toEqual(scope);
  const provider = providerOf(owner);
  expect(await provider.pull({ scope, cursor: 0, limit: 5 })).toMatchObject({
    changes: [],
    requiresSnapshot: true,
    oldestRetainedVersion: 3,
  });
  const { items, highWatermark } = await provider.snapshot!({ scope, pageSize: 5 });
  expect(items).toMatchObject([{ kind: 'row', pk: 'b' }]);
  expect(await provider.pull({ scope, cursor: highWatermark, limit: 5 })).toMatchObject({
    changes: [],
    requiresSnapshot: false,
  });
});

test('an idle device is acknowledged for', async () => {
  const { owner, workspaceId } = await world.workspace();
  await world.push(owner, workspaceId, op('threads', 'a', {}));
  const acknowledgements = new EventTarget();
  const watched: typeof fetch = async (input, init) => {
    const response = await fetch(input, init);
    if (String(input).endsWith('/cursor')) {
      acknowledgements.dispatchEvent(
        new CustomEvent('done', { detail: JSON.parse(String(init!.body)) }),
      );
    }
    return response;
  };
  const acknowledged = (version: number) =>
    new Promise<void>((resolve) => {
      acknowledgements.addEventListener('done', (event) => {
        const { detail } = event as CustomEvent;
        if (detail.deviceId === 'laptop' && detail.version === version) resolve();
      });
    });
  const [first, second] = [acknowledged(1), acknowledged(2)];
  const options = { deviceId: () => 'laptop', acknowledgeIntervalMs: 1, fetch: watched };
  const following = await Following.start(providerOf(owner, options), { workspaceId }, [], 1);
  await first;
  await world.push(owner, workspaceId, op('threads', 'b', {}));
  await following.until(1);
  await second;
  const { rows } = await world.admin.query(
    'select device_id, last_seen_version::int from sync_ext.device_status where workspace_id = $1',
    [workspaceId],
  );
  expect(rows).toEqual([{ device_id: 'laptop', last_seen_version: 2 }]);
});

/** A server that answers the n-th request by the n-th function. */
async function scripted(answers: Array<(response: ServerResponse) => void>): Promise<string> {
  const server = createServer((_, response) => {
    const answer = answers.shift();
    if (answer) answer(response);
    else response.writeHead(200).flushHeaders();
  }).listen(0, '127.0.0.1');
  servers.push(server);
  await once(server, 'listening');
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const page = (version: number, name = 'changes') => {
  const change = {
    serverVersion: version,
    tableName: 'kv',
    pk: `k${version}`,
    op: 'put',
    stamp: {},
  };
  return `event: ${name}\ndata: ${JSON.stringify({ changes: [change], nextCursor: version })}\n\n`;
};

/** As the gateway answers while a workspace is between two servers. */
const elsewhere = (response: ServerResponse) =>
  response
    .writeHead(503, { 'retry-after': '0.001' })
    .end(JSON.stringify({ error: { code: 'SX004', message: 'workspace is elsewhere' } }));

test('a call for a workspace that moves fails as one that may succeed later', async () => {
  const url = await scripted([elsewhere, elsewhere]);
  const provider = providerOf('u', { url });
  const scope = { workspaceId: 'w' };
  for (const call of [
    () => provider.push({ scope, ops: [op('threads', 'a', {}), op('threads', 'b', {})] }),
    () => provider.pull({ scope, cursor: 0, limit: 1 }),
  ]) {
    const error = (await call().catch((caught) => caught)) as RequestError;
    expect(error).toMatchObject({ statusCode: 503, sqlState: 'SX004', retryAfterMs: 1 });
    expect(error.isRefusal).toBe(false);
  }
});

test('events that are old, unknown or cut off change nothing', async () => {
  const url = await scripted([
    (response) =>
      response.end(
        `: hello\n\n${page(1)}${page(2)}${page(1)}${page(9, 'other')}${page(3).slice(0, -1)}`,
      ),
    (response) => response.destroy(),
    (response) => response.writeHead(503, { 'retry-after': '0.001' }).end('<html>'),
    elsewhere,
    (response) => response.end('event: changes\ndata: {\n\n'),
    (response) => response.write(page(2) + page(3)),
  ]);
  const errors: RequestError[] = [];
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  try {
    const provider = providerOf('u', { url, onError: (error: RequestError) => errors.push(error) });
    const following = await Following.start(provider, { workspaceId: 'w' });
    while (following.changes.length < 3) {
      await vi.advanceTimersToNextTimerAsync();
      await new Promise(setImmediate);
    }
    expect(following.changes.map(({ pk }) => pk)).toEqual(['k1', 'k2', 'k3']);
    expect(errors.map(({ statusCode, sqlState }) => sqlState ?? statusCode)).toEqual([undefined, 503, 'SX004', undefined]);
  } finally {
    vi.useRealTimers();
  }
});

test.each(['\n', '\r\n', '\r'])('events are read whatever ends their lines: %j', async (end) => {
  const text = [
    'event: a',
    'data: 1',
    'data:2',
    'id: x',
    ': comment',
    '',
    'data',
    '',
    'retry: 5',
    '',
    'data: ü',
    '',
    'data: cut',
  ].join(end);
  const bytes = new TextEncoder().encode(text);
  for (const size of [1, 2, 3, bytes.length]) {
    const stream = new ReadableStream<Uint8Array>({
      start(controller) {
        for (let i = 0; i < bytes.length; i += size) controller.enqueue(bytes.slice(i, i + size));
        controller.close();
      },
    });
    const events = [];
    for await (const event of eventsOf(stream)) events.push(event);
    expect(events).toEqual([
      { name: 'a', data: '1\n2' },
      { name: 'message', data: '' },
      { name: 'message', data: 'ü' },
    ]);
  }
});
