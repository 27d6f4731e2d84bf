/** The Nitro plugin: registers the adapter and the store while the app uses this provider. */
import { useRuntimeConfig } from '#imports';
import pg from 'pg';
import { registerAuthWorkspaceStore } from '~~/server/auth/store/registry';
import { registerSyncGatewayAdapter } from '~~/server/sync/gateway/registry';
import { providerId, SyncExtGatewayAdapter } from '../server/adapter.ts';
import { requireMigrated } from '../server/schema.ts';
import { SyncExtAuthWorkspaceStore } from '../server/store.ts';

interface NitroApp {
  hooks: { hook(name: 'close', run: () => Promise<void>): void };
}

export default async function plugin(nitro: NitroApp): Promise<void> {
  const { auth, sync } = useRuntimeConfig();
  if (!auth?.enabled || !sync?.enabled || sync.provider !== providerId) return;
  const url = process.env.OR3_SYNC_EXT_DATABASE_URL;
  if (!url) throw new Error('OR3_SYNC_EXT_DATABASE_URL is not set');
  const syncUrl = process.env.OR3_SYNC_EXT_SYNC_DATABASE_URL;
  const pools = new Set<pg.Pool>();
  const poolOf = (connectionString: string) => {
    const pool = new pg.Pool({ connectionString, max: poolSize() });
    // An idle connection that is lost is replaced; without a listener it would end the app.
    pool.on('error', (error) => console.warn('[sync-ext] connection lost:', error.message));
    pools.add(pool);
    return pool;
  };
  nitro.hooks.hook('close', async () => {
    await Promise.all([...pools].map((pool) => pool.end()));
  });
  const storeDatabase = poolOf(url);
  const syncDatabase = syncUrl ? poolOf(syncUrl) : storeDatabase;
  await requireMigrated(storeDatabase);
  const store = new SyncExtAuthWorkspaceStore({ database: storeDatabase });
  const adapter = new SyncExtGatewayAdapter({ database: syncDatabase });
  registerAuthWorkspaceStore({ id: providerId, order: 100, create: () => store });
  registerSyncGatewayAdapter({ id: providerId, order: 100, create: () => adapter });
}

function poolSize(): number {
  const given = Number(process.env.OR3_SYNC_EXT_POOL_SIZE ?? 10);
  if (!Number.isInteger(given) || given < 1) {
    throw new Error('OR3_SYNC_EXT_POOL_SIZE must be a positive integer');
  }
  return given;
}
