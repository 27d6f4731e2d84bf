/**
 * OR3 Chat on sync_ext: sync, users and workspaces in Postgres.
 *
 * The server's part, for use without the Nuxt module. `or3-provider-sync-ext/client` is the
 * browser's, `/migrate` sets the database up, `/nuxt` registers everything.
 */
export * from './host.ts';
export { ProviderError, type ErrorName } from './error.ts';
export { userOf } from './session.ts';
export type { Connection, Database, Queryable } from './server/database.ts';
export { providerId, SyncExtGatewayAdapter, type AdapterOptions } from './server/adapter.ts';
export { requireMigrated } from './server/schema.ts';
export { SyncExtAuthWorkspaceStore } from './server/store.ts';
