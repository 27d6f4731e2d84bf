import { existsSync } from 'node:fs';
import { afterAll, beforeAll, beforeEach, expect, test, vi } from 'vitest';
import clientPlugin from '../src/nuxt/client.ts';
import module from '../src/nuxt/module.ts';
import serverPlugin from '../src/nuxt/server.ts';
import { host } from './host/imports.ts';
import { forget, registered } from './host/registries.ts';
import { eventOf, failureOf, op, World } from './support/world.ts';

let world: World;
beforeAll(async () => {
  world = await World.create();
});
afterAll(() => world.end());

beforeEach(() => {
  forget();
  vi.unstubAllEnvs();
  host.asked.length = 0;
});

const enabled = { auth: { enabled: true }, sync: { enabled: true, provider: 'sync-ext' } };

function urlOf(user: string): string {
  const { host, port, database } = world.cluster.connection(world.database);
  return `postgres://${user}@localhost:${port}/${database}?host=${encodeURIComponent(host)}`;
}

/** Nitro, as far as the plugin knows it. */
function nitro() {
  const closers: Array<() => Promise<void>> = [];
  return {
    hooks: { hook: (_: 'close', run: () => Promise<void>) => closers.push(run) },
    close: () => Promise.all(closers.map((close) => close())),
  };
}

test('the server plugin registers adapter and store', async () => {
  vi.stubEnv('OR3_SYNC_EXT_DATABASE_URL', urlOf('or3_app'));
  vi.stubEnv('OR3_SYNC_EXT_SYNC_DATABASE_URL', urlOf('or3_sync'));
  host.config = enabled;
  const app = nitro();
  await serverPlugin(app);
  const store = registered.stores.get('sync-ext')!;
  const adapter = registered.adapters.get('sync-ext')!;
  const { userId } = await store.getOrCreateUser({ provider: 'p', providerUserId: 'u' });
  const { workspaceId } = await store.getOrCreateDefaultWorkspace(userId);
  const batch = { scope: { workspaceId }, ops: [op('threads', 'a', {})] };
  expect(await adapter.push(eventOf(userId), batch)).toMatchObject({ serverVersion: 1 });
  const { rows } = await world.admin.query(
    `select usename::text as login, count(*)::int from pg_stat_activity
      where datname = $1 and usename like 'or3%' group by 1 order by 1`,
    [world.database],
  );
  expect(rows).toEqual([
    { login: 'or3_app', count: 1 },
    { login: 'or3_sync', count: 1 },
  ]);
  await app.close();
  expect(await failureOf(adapter.push(eventOf(userId), batch))).toMatchObject({ status: 500 });
});

test('one login may serve both', async () => {
  vi.stubEnv('OR3_SYNC_EXT_DATABASE_URL', urlOf('or3_app'));
  host.config = enabled;
  const app = nitro();
  await serverPlugin(app);
  const { owner, workspaceId } = await world.workspace();
  const adapter = registered.adapters.get('sync-ext')!;
  const batch = { scope: { workspaceId }, ops: [op('threads', 'a', {})] };
  expect(await adapter.push(eventOf(owner), batch)).toMatchObject({ serverVersion: 1 });
  expect(await failureOf(adapter.push({ context: {} }, batch))).toMatchObject({ status: 401 });
  await app.close();
});

test.each([
  { ...enabled, auth: { enabled: false } },
  { ...enabled, sync: { enabled: false, provider: 'sync-ext' } },
  { ...enabled, sync: { enabled: true, provider: 'sqlite' } },
  {},
])('it registers nothing where the app does not use it: %o', async (config) => {
  host.config = config;
  await serverPlugin(nitro());
  expect(registered.adapters.size + registered.stores.size).toBe(0);
});

test('it says what is missing', async () => {
  host.config = enabled;
  vi.stubEnv('OR3_SYNC_EXT_DATABASE_URL', '');
  await expect(serverPlugin(nitro())).rejects.toThrow('OR3_SYNC_EXT_DATABASE_URL is not set');
  vi.stubEnv('OR3_SYNC_EXT_DATABASE_URL', urlOf('or3_app'));
  vi.stubEnv('OR3_SYNC_EXT_POOL_SIZE', 'many');
  await expect(serverPlugin(nitro())).rejects.toThrow('OR3_SYNC_EXT_POOL_SIZE must be');
  vi.stubEnv('OR3_SYNC_EXT_POOL_SIZE', '2');
  vi.stubEnv('OR3_SYNC_EXT_DATABASE_URL', urlOf('or3_app').replace(world.database, 'postgres'));
  const app = nitro();
  await expect(serverPlugin(app)).rejects.toThrow('run or3-provider-sync-ext migrate');
  await app.close();
  expect(registered.adapters.size).toBe(0);
});

test('the client plugin registers a provider of the gateway mode', async () => {
  host.config = {
    public: { sync: { enabled: true, provider: 'sync-ext' }, syncExt: { directUrl: '' } },
  };
  clientPlugin();
  expect(registered.active).toBe('sync-ext');
  expect(registered.providers.get('sync-ext')).toMatchObject({ mode: 'gateway' });
  expect(host.asked).toEqual([]);
});

test('with the address of a gateway it registers one of the direct mode', async () => {
  const calls: Array<[string, RequestInit]> = [];
  vi.stubGlobal('fetch', async (url: string, init: RequestInit) => {
    calls.push([url, init]);
    return new Response('{"results": [], "serverVersion": 0}');
  });
  const sync = { enabled: true, provider: 'sync-ext' };
  const directUrl = 'https://sync.example';
  host.token = 'abc';
  const scope = { workspaceId: 'w' };
  try {
    host.config = { public: { sync, syncExt: { directUrl, tokenTemplate: 'sync' } } };
    clientPlugin();
    const provider = registered.providers.get('sync-ext')!;
    expect(provider).toMatchObject({
      mode: 'direct',
      auth: { providerId: 'sync-ext', template: 'sync' },
    });
    await provider.push({ scope, ops: [] });
    host.config = { public: { sync, syncExt: { directUrl, tokenTemplate: '' } } };
    clientPlugin();
    await registered.providers.get('sync-ext')!.push({ scope, ops: [] });
  } finally {
    vi.unstubAllGlobals();
  }
  expect(host.asked).toEqual([{ providerId: 'sync-ext', template: 'sync' }]);
  expect(calls.map(([url]) => url)).toEqual(
    Array(2).fill('https://sync.example/workspaces/w/push'),
  );
  const [withToken, withCookie] = calls.map(([, init]) => init) as [RequestInit, RequestInit];
  expect(new Headers(withToken.headers).get('authorization')).toBe('Bearer abc');
  expect(withToken.credentials).toBe('same-origin');
  expect(new Headers(withCookie.headers).get('authorization')).toBe(null);
  expect(withCookie.credentials).toBe('include');
});

test('the client plugin registers nothing where the app does not use it', () => {
  for (const sync of [
    undefined,
    { enabled: false, provider: 'sync-ext' },
    { enabled: true, provider: 'convex' },
  ]) {
    host.config = { public: { sync } };
    clientPlugin();
  }
  expect(registered.providers.size).toBe(0);
});

test('the module adds the plugins to the build', async () => {
  const options = {
    build: { transpile: [] as unknown[] },
    nitro: {} as { plugins?: string[] },
    plugins: [] as Array<{ src: string; mode: string }>,
    runtimeConfig: { public: {} as Record<string, unknown> },
  };
  vi.stubEnv('OR3_SYNC_EXT_DIRECT_URL', 'https://sync.example');
  module({}, { options });
  expect(options.build.transpile).toEqual(['or3-provider-sync-ext']);
  expect(options.runtimeConfig.public).toEqual({
    syncExt: { directUrl: 'https://sync.example', tokenTemplate: '' },
  });
  const plugins = [options.nitro.plugins![0]!, options.plugins[0]!.src];
  expect(options.plugins).toMatchObject([{ mode: 'client' }]);
  // As installed.
  for (const plugin of plugins) expect(existsSync(plugin.replace('/src/', '/dist/'))).toBe(true);
  expect(await module.getMeta()).toEqual({ name: 'or3-provider-sync-ext' });
});
