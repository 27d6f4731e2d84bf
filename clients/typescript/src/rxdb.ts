import type { ReplicationOptions, ReplicationPullOptions, ReplicationPushOptions, RxCollection, RxStorageInstanceReplicationState, WithDeleted } from 'rxdb';
import { type RxReplicationState, replicateRxCollection } from 'rxdb/plugins/replication';
import { type Observable, Subject, exhaustMap, filter, firstValueFrom } from 'rxjs';
import { SyncError } from './error.ts';
import { Documents, type Shape } from './rxdb/document.ts';
import { type Feed, feedOf } from './rxdb/feed.ts';
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
  const {
    collection, workspace, url, headers: _, fetch: __, timeout: ___,
    tableName = collection.name, field = 'sync', pollInterval = 30_000,
    replicationIdentifier = `sync-ext:${url}:${workspace}:${tableName}`, pull, push = {}, ...passed
  } = options;
  const documents = new Documents(shapeOf(collection as RxCollection, field));
  const stamps = stampEdits(collection as RxCollection, documents);
  const server = new Server(options);
  const ended = new AbortController();
  const call = <T>(name: string, body: unknown) => server.call<T>(workspace, name, body, ended.signal);
  const refused = new Subject<Refusal<WithDeleted<D>>>();
  const pusher = new Pusher({
    tableName,
    documents,
    stamps,
    call,
    tell: (refusal) => refused.next(refusal as Refusal<WithDeleted<D>>),
    answered: (pk, version) => puller.answered(pk, version),
  });
  /** Pushes whose answers RxDB has not stored yet. */
  const pushing = new Set<Promise<void>>();
  const feed = feedOf(options);
  const changes = new Subject<void>();
  const puller = new Puller({
    tableName,
    documents,
    deviceId: stamps.then(({ deviceId }) => deviceId),
    call,
    state: () => ({ fork: collection.storageInstance, meta: state.metaInstance!, replication: state.internalReplicationState! }),
    pushes: push !== false,
    pushed: () => Promise.all(pushing),
    resync: () => changes.next(),
    pulled: (checkpoint) => feed.pulled(checkpoint),
  });
  if (push) guardConflicts(collection as RxCollection, { documents, stamps, puller, pusher });
  let isFollowing = options.live === false;
  const state: RxReplicationState<D, Checkpoint> = replicateRxCollection<D, Checkpoint>({
    ...passed,
    replicationIdentifier,
    collection,
    pull: {
      ...pull,
      stream$: changes.pipe(exhaustMap(() => idle(state.internalReplicationState!))),
      handler: async (checkpoint, batchSize) => {
        // The first call: this tab leads.
        if (!isFollowing) state.onCancel.push(follow(feed, puller, pollInterval));
        isFollowing = true;
        const { documents, checkpoint: next } = await puller.pull(checkpoint, batchSize);
        return { documents: documents as WithDeleted<D>[], checkpoint: next };
      },
    },
    ...(push && {
      push: {
        ...push,
        handler: async (rows) => {
          const { up: stored } = state.internalReplicationState!.streamQueue;
          const answer = pusher.push(rows as unknown as Row[]);
          const settled = answer.then(() => stored).then(() => {}, () => {});
          pushing.add(settled);
          void settled.then(() => pushing.delete(settled));
          return await answer as WithDeleted<D>[];
        },
      },
    }),
  });
  // Not by onCancel, which comes before the errors of calls are of no interest.
  state.canceled$.subscribe((isCanceled: boolean) => {
    if (!isCanceled) return;
    ended.abort();
    refused.complete();
  });
  return Object.assign(state, { refused$: refused.asObservable() });
}

function shapeOf({ name, schema }: RxCollection, field: string): Shape {
  const { properties, required = [], attachments } = schema.jsonSchema;
  if (!Object.hasOwn(properties, field)) {
    throw new SyncError('NO_FIELD', `the schema of ${name} has no property ${field}: add syncProperty`);
  }
  if (attachments) throw new SyncError('ATTACHMENTS', 'attachments cannot be replicated');
  const primaryPath = schema.primaryPath as string;
  return { primaryPath, field, properties: Object.keys(properties), required: required as string[] };
}

/** Waits until nothing is pushed. Of a RESYNC before that, RxDB forgets the edits that wait to be
 * pushed, and looks for them by their times; but they need not be stored in the order of these. */
async function idle({ events: { active, canceled }, streamQueue }: RxStorageInstanceReplicationState<any>): Promise<'RESYNC'> {
  for (;;) {
    const { up } = streamQueue;
    await Promise.allSettled([up]);
    await firstValueFrom(active.up.pipe(filter((isActive) => !isActive)), { defaultValue: false });
    if (up === streamQueue.up || canceled.getValue()) return 'RESYNC';
  }
}

/** Pulls when a stream tells of changes, and in intervals. Returns what ends it. */
function follow(feed: Feed, puller: Puller, pollInterval: number): () => void {
  const leave = feed.join(puller);
  let intervals = 0;
  const timer = setInterval(() => {
    if (!feed.isConnected || ++intervals % INTERVALS === 0) puller.resync();
  }, pollInterval);
  return () => {
    leave();
    clearInterval(timer);
  };
}
