import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest';
import type { SyncProvider } from '../src/host.ts';
import { createGatewaySyncProvider } from '../src/client/gateway.ts';
import { RequestError } from '../src/client/request.ts';
import { App } from './support/app.ts';
import { Following } from './support/following.ts';
import { op, World } from './support/world.ts';

let world: World;
let app: App;
const providers: SyncProvider[] = [];

beforeAll(async () => {
  world = await World.create();
  app = await App.start(world.adapter);
});
afterEach(async () => {
  await Promise.all(providers.splice(0).map((provider) => provider.dispose()));
});
afterAll(async () => {
  await app.stop();
  await world.end();
});

function providerOf(user: string, options = {}): SyncProvider {
  const provider = createGatewaySyncProvider({
    baseUrl: app.url,
    headers: () => ({ 'x-user': user }),
    pollIntervalMs: 1,
    ...options,
  });
  providers.push(provider);
  return provider;
}

test('calls reach sync_ext, and replies come back', async () => {
  const { owner, workspaceId } = await world.workspace();
  const provider = providerOf(owner);
  const scope = { workspaceId };
  const ops = [op('threads', 'a', { n: 1 })];
  expect(await provider.push({ scope, ops })).toMatchObject({
    results: [{ success: true }],
    serverVersion: 1,
  });
  const { changes } = await provider.pull({ scope, cursor: 0, limit: 10 });
  expect(changes).toMatchObject([{ pk: 'a', payload: { n: 1 } }]);
  expect(await provider.snapshot!({ scope, pageSize: 10 })).toMatchObject({ highWatermark: 1 });
  await provider.updateCursor(scope, 'laptop', 1);
  await provider.gcTombstones!(scope, 3600);
  await provider.gcChangeLog!(scope, 3600);
});

test('h3 answers failures with their status and name', async () => {
  const { owner, workspaceId } = await world.workspace();
  const scope = { workspaceId };
  const refusal = async (call: Promise<unknown>) => {
    const error = (await call.catch((caught) => caught)) as RequestError;
    expect(error).toBeInstanceOf(RequestError);
    return [error.statusCode, error.message];
  };
  const [own, stranger] = [providerOf(owner), providerOf(await world.user())];
  expect(await refusal(stranger.pull({ scope, cursor: 0, limit: 1 }))).toEqual([
    403,
    'no role in the workspace allows this',
  ]);
  expect(await refusal(providerOf('').pull({ scope, cursor: 0, limit: 1 }))).toEqual([
    401,
    'the request has no session',
  ]);
  expect(await refusal(own.updateCursor(scope, 'laptop', 7))).toEqual([
    409,
    'the version is above the head: pull first',
  ]);
  expect(await refusal(own.gcChangeLog!(scope, 1))).toEqual([400, 'the request is invalid']);
  const response = await fetch(`${app.url}/api/sync/pull`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'x-user': owner },
    body: JSON.stringify({ scope, cursor: -1, limit: 1 }),
  });
  expect(response.status).toBe(400);
  expect(await response.json()).toMatchObject({
    statusCode: 400,
    statusMessage: 'the request is invalid',
    data: { code: 'invalid_request', detail: 'The cursor must be an integer from 0 to 2^53 - 1.' },
  });
});

test('a subscription brings what others push, in order and once', async () => {
  const { owner, workspaceId } = await world.workspace();
  const following = await Following.start(providerOf(owner), { workspaceId }, [], 0, 2);
  const ops = Array.from({ length: 5 }, (_, i) => op('threads', `t${i}`, { n: i }));
  await world.push(owner, workspaceId, ...ops);
  await following.until(5);
  await world.push(owner, workspaceId, op('threads', 'last', {}));
  const changes = await following.until(6);
  expect(changes.map(({ serverVersion }) => serverVersion)).toEqual([1, 2, 3, 4, 5, 6]);
});

test('pages that follow are not waited for', async () => {
  const { owner, workspaceId } = await world.workspace();
  await world.push(owner, workspaceId, ...['a', 'b', 'c'].map((pk) => op('threads', pk, {})));
  const rare = providerOf(owner, { pollIntervalMs: 3_600_000 });
  const following = await Following.start(rare, { workspaceId }, [], 0, 1);
  expect(await following.until(3)).toHaveLength(3);
});

test('it begins at a cursor, with a filter', async () => {
  const { owner, workspaceId } = await world.workspace();
  await world.push(
    owner,
    workspaceId,
    op('threads', 'a', {}),
    op('threads', 'b', {}),
    op('kv', 'c', {}),
  );
  const following = await Following.start(providerOf(owner), { workspaceId }, ['threads'], 1);
  await following.until(1);
  await world.push(owner, workspaceId, op('kv', 'd', {}), op('threads', 'e', {}));
  expect((await following.until(2)).map(({ pk }) => pk)).toEqual(['b', 'e']);
});

test('changes that could not be applied come again', async () => {
  const { owner, workspaceId } = await world.workspace();
  const errors: unknown[] = [];
  const provider = providerOf(owner, { onError: (error: unknown) => errors.push(error) });
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  try {
    const following = await Following.start(provider, { workspaceId });
    following.failure = new Error('the disk is full');
    await world.push(owner, workspaceId, op('threads', 'a', {}));
    while (following.changes.length === 0) {
      await vi.advanceTimersToNextTimerAsync();
      await new Promise(setImmediate);
    }
    expect(following.changes).toMatchObject([{ serverVersion: 1 }]);
    expect(errors).toEqual([new Error('the disk is full')]);
  } finally {
    vi.useRealTimers();
  }
});

test('one that is ended asks no more', async () => {
  const { owner, workspaceId } = await world.workspace();
  const provider = providerOf(owner);
  const [first, second] = [
    await Following.start(provider, { workspaceId }),
    await Following.start(provider, { workspaceId }),
  ];
  first.end();
  await world.push(owner, workspaceId, op('threads', 'a', {}));
  await second.until(1);
  expect(first.changes).toEqual([]);
  await provider.dispose();
  const asked = app.requests.length;
  await world.push(owner, workspaceId, op('threads', 'b', {}));
  // A request of its own, after which one of the subscription would have come.
  await providerOf(owner).pull({ scope: { workspaceId }, cursor: 0, limit: 1 });
  expect(app.requests.slice(asked).filter(({ name }) => name === 'pull')).toHaveLength(1);
  expect(second.changes).toHaveLength(1);
});

test('a refused session is told to the app, and nothing is asked any more', async () => {
  const { workspaceId } = await world.workspace();
  const told = new Promise<CustomEvent>((resolve) => {
    vi.stubGlobal('dispatchEvent', (event: CustomEvent) => {
      resolve(event);
      return true;
    });
  });
  const provider = providerOf(await world.user());
  await Following.start(provider, { workspaceId });
  const { type, detail } = await told;
  vi.unstubAllGlobals();
  expect([type, detail]).toEqual(['or3:sync-session-invalid', { status: 403, workspaceId }]);
});

test('an idle device is acknowledged for', async () => {
  const { owner, workspaceId } = await world.workspace();
  await world.push(owner, workspaceId, op('threads', 'a', {}), op('threads', 'b', {}));
  const devices = async () => {
    const { rows } = await world.admin.query(
      `select device_id, last_seen_version::int from sync_ext.device_status where workspace_id = $1`,
      [workspaceId],
    );
    return rows.map((row) => [row.device_id, row.last_seen_version]);
  };
  // Of an app whose endpoints drop what they do not know.
  const pull = world.adapter.pull.bind(world.adapter);
  const spy = vi
    .spyOn(world.adapter, 'pull')
    .mockImplementation((event, { deviceId: _, ...input }) => pull(event, input));
  const acknowledged = new Promise<void>((resolve) => {
    app.accidents.set('update-cursor', (answer) => {
      resolve();
      return answer;
    });
  });
  await Following.start(providerOf(owner, { deviceId: () => 'laptop' }), { workspaceId }, [], 2);
  await acknowledged;
  spy.mockRestore();
  expect(await devices()).toEqual([['laptop', 2]]);
  expect(
    app.requests.filter(
      ({ name, body }) => name === 'update-cursor' && body.scope.workspaceId === workspaceId,
    ),
  ).toHaveLength(1);
});

test('an app whose endpoints pass the device on needs no more', async () => {
  const { owner, workspaceId } = await world.workspace();
  await world.push(owner, workspaceId, op('threads', 'a', {}));
  const provider = providerOf(owner, { deviceId: () => 'laptop' });
  const following = await Following.start(provider, { workspaceId });
  await following.until(1);
  await world.push(owner, workspaceId, op('threads', 'b', {}));
  await following.until(2);
  expect(
    app.requests.filter(
      ({ name, body }) => name === 'pull' && body.scope.workspaceId === workspaceId,
    )[0]!.body,
  ).toMatchObject({ deviceId: 'laptop' });
});
