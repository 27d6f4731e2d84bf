import type { Dexie } from 'dexie';
import { DexieStore } from './store/dexie.ts';
import { Sync, type SyncOptions } from './sync.ts';

export type { Scopes } from './device.ts';
export { SyncError } from './error.ts';
export { Observable } from './observable.ts';
export type { Conflict, Run, Store, Tx } from './store/store.ts';
export { Sync } from './sync.ts';
export type { OpenConflict, Status, SyncEvents, SyncOptions, TableOptions } from './sync.ts';
export type { Json, Op, Payload, PushResult, Revision } from './wire.ts';

/** Syncs tables of a Dexie database that has not been opened yet. From here on what is written
 * into them is captured; `start()` exchanges it with the server. */
export function syncTables(db: Dexie, options: SyncOptions): Sync {
  return new Sync(options, (sync) => new DexieStore(db, sync.tables, sync));
}
