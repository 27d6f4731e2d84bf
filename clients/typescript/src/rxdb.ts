import type { ReplicationOptions, ReplicationPullOptions, ReplicationPushOptions, RxCollection, WithDeleted } from 'rxdb';
import { type RxReplicationState, replicateRxCollection } from 'rxdb/plugins/replication';
import { type Observable, Subject } from 'rxjs';
import { SyncError } from './error.ts';
import { Documents } from './rxdb/document.ts';
import { feedOf } from './rxdb/feed.ts';
import { guardConflicts } from './rxdb/guard.ts';
import { type Checkpoint, Puller } from './rxdb/pull.ts';
import { Pusher, type Refusal, type Row } from './rxdb/push.ts';
import { stampEdits } from './rxdb/stamps.ts';
import { Server, type ServerOptions } from './server.ts';

export { SyncError } from './error.ts';
export { type SyncField, syncProperty } from './rxdb/document.ts';
export type { Checkpoint } from './rxdb/pull.ts';
export type { Refusal } from './rxdb/push.ts';

type Passed<D> = Pick<ReplicationOptions<D, Checkpoint>, 'live' | 'retryTime' | 'waitForLeadership' | 'autoStart' | 'toggleOnDocumentVisible'>;

export interface SyncExtOptions<D> extends ServerOptions, Passed<D> {
  collection: RxCollection<D>;
  workspace: string;
  /** The server's name of the table; default: that of the collection. */
  tableName?: string;
  /** The property of the schema that is a `syncProperty`; default `sync`. */
  field?: string;
  /** RxDB's name of the replication; default: made of url, workspace and table. */
  replicationIdentifier?: string;
  /** Milliseconds between two pulls without a stream; default 30,000. */
  pollInterval?: number;
  pull?: Pick<ReplicationPullOptions<D, Checkpoint>, 'batchSize' | 'modifier'>;
  /** `false`: devices only read. */
  push?: Pick<ReplicationPushOptions<D>, 'batchSize' | 'modifier' | 'waitBeforePersist'> | false;
}

export type SyncExtReplication<D> = RxReplicationState<D, Checkpoint> & {
  /** Edits that the server does not accept. */
  readonly refused$: Observable<Refusal<WithDeleted<D>>>;
};

/** With a stream it is still pulled, once in so many intervals. */
const INTERVALS = 20;

/** Replicates a collection of RxDB with a table of a workspace. Call it in each tab, before the
 * collection is written into. */
export function replicateSyncExt<D>(options: SyncExtOptions<D>): SyncExtReplication<D> {
  const { collection, workspace, url, tableName = collection.name, field = 'sync', push = {}, pollInterval = 30_000 } = options;
  const { live = true, retryTime, waitForLeadership, autoStart, toggleOnDocumentVisible } = options;
  const { schema } = collection;
  const { properties, required = [], attachments } = schema.jsonSchema;
  if (!Object.hasOwn(properties, field)) {
    throw new SyncError('NO_FIELD', `the schema of ${collection.name} has no property ${field}: add syncProperty`);
  }
  if (attachments) throw new SyncError('ATTACHMENTS', 'attachments cannot be replicated');
  const primaryPath = schema.primaryPath as string;
  const documents = new Documents({ primaryPath, field, properties: Object.keys(properties), required: required as string[] });
  const stamps = stampEdits(collection as RxCollection, documents);
  const server = new Server(options);
  const feed = feedOf(options);
  const ended = new AbortController();
  const call = <T>(name: string, body: unknown) => server.call<T>(workspace, name, body, ended.signal);
  const resync = new Subject<'RESYNC'>();
  const refused = new Subject<Refusal<WithDeleted<D>>>();
  const pusher = new Pusher({ tableName, documents, stamps, call, tell: (refusal) => refused.next(refusal as Refusal<WithDeleted<D>>) });
  const puller = new Puller({
    tableName,
    documents,
    deviceId: stamps.then(({ deviceId }) => deviceId),
    call,
    state: () => ({ fork: collection.storageInstance, meta: state.metaInstance!, replication: state.internalReplicationState! }),
    pushes: push !== false,
    resync: () => resync.next('RESYNC'),
    pulled: (checkpoint) => feed.pulled(checkpoint),
  });
  if (push) guardConflicts(collection as RxCollection, { documents, stamps, puller, pusher });
  let begin: (() => void) | undefined = () => {
    begin = undefined;
    if (!live) return;
    const leave = feed.join(puller);
    let intervals = 0;
    const timer = setInterval(() => {
      if (!feed.isConnected || ++intervals % INTERVALS === 0) puller.resync();
    }, pollInterval);
    state.onCancel.push(leave, () => clearInterval(timer));
  };
  const state: RxReplicationState<D, Checkpoint> = replicateRxCollection<D, Checkpoint>({
    replicationIdentifier: options.replicationIdentifier ?? `sync-ext:${url}:${workspace}:${tableName}`,
    collection,
    live,
    ...(retryTime !== undefined && { retryTime }),
    ...(waitForLeadership !== undefined && { waitForLeadership }),
    ...(autoStart !== undefined && { autoStart }),
    ...(toggleOnDocumentVisible !== undefined && { toggleOnDocumentVisible }),
    pull: {
      ...options.pull,
      stream$: resync,
      handler: async (checkpoint, batchSize) => {
        begin?.();
        const { documents, checkpoint: next } = await puller.pull(checkpoint, batchSize);
        return { documents: documents as WithDeleted<D>[], checkpoint: next };
      },
    },
    ...(push && {
      push: {
        ...push,
        handler: async (rows) => await pusher.push(rows as unknown as Row[]) as WithDeleted<D>[],
      },
    }),
  });
  state.onCancel.push(() => {
    ended.abort();
    refused.complete();
  });
  return Object.assign(state, { refused$: refused.asObservable() });
}
