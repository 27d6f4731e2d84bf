/** The app's client, by way of sync_ext's gateway, without the app's server between. */
import type {
  PullRequest,
  PullResponse,
  PushBatch,
  PushResult,
  SnapshotRequest,
  SnapshotResponse,
  SyncChange,
  SyncProvider,
  SyncScope,
  SyncSubscribeOptions,
} from '../host.ts';
import type { PullReply, PushReply, SnapshotReply } from '../wire.ts';
import { toLimit, toPullResponse, toSnapshotResponse } from '../convert.ts';
import { pushBatch } from '../push.ts';
import { eventsOf } from './events.ts';
import { Http, type HttpOptions } from './request.ts';
import { Subscription, type FollowOptions } from './subscription.ts';

export interface DirectProviderOptions extends HttpOptions, FollowOptions {
  /** Of the gateway, such as `https://sync.example`. */
  url: string;
  id?: string;
  /** Milliseconds until a stream that has ended is opened again; by default 1,000. */
  reconnectIntervalMs?: number;
  /** What the app asks its token broker for, before it uses this provider. */
  auth?: { providerId: string; template?: string };
}

/**
 * Only for clients that know `requiresSnapshot`: the gateway does not show purged deletes,
 * which the adapter adds for older ones.
 */
export function createDirectSyncProvider(options: DirectProviderOptions): SyncProvider {
  const http = new Http(options.url, options);
  const subscriptions = new Set<Subscription>();
  const path = ({ workspaceId }: SyncScope, name: string) =>
    `/workspaces/${encodeURIComponent(workspaceId)}/${name}`;

  /** One stream, to its end. */
  async function follow(subscription: Subscription, query: URLSearchParams): Promise<number> {
    const { scope, signal } = subscription;
    query.set('cursor', String(subscription.cursor));
    const stream = await http.stream(path(scope, `live?${query}`), signal);
    for await (const { name, data } of eventsOf(stream)) {
      if (signal.aborted) break;
      if (name === 'changes') {
        const { changes, nextCursor } = toPullResponse(JSON.parse(data));
        await subscription.apply(changes, nextCursor);
      } else if (name === 'snapshot') {
        subscription.end();
        subscription.requireSnapshot();
      } else if (name === 'refused') {
        subscription.refuse(403);
      }
    }
    return options.reconnectIntervalMs ?? 1000;
  }

  const provider: SyncProvider = {
    id: options.id ?? 'sync-ext',
    mode: 'direct',
    capabilities: { snapshotBootstrap: 'snapshot-v1', historyRetention: 'snapshot-v1' },
    ...(options.auth && { auth: options.auth }),

    async subscribe(
      scope: SyncScope,
      tables: string[],
      onChanges: (changes: SyncChange[]) => void | Promise<void>,
      { cursor = 0, limit = 100 }: SyncSubscribeOptions = {},
    ): Promise<() => void> {
      const subscription = new Subscription(scope, cursor, onChanges, options);
      const query = new URLSearchParams({ latest: 'true' });
      const pageLimit = toLimit(limit);
      if (pageLimit !== null) query.set('pageLimit', String(pageLimit));
      for (const table of tables) query.append('tables', table);
      subscriptions.add(subscription);
      void subscription.run(() => follow(subscription, query));
      void subscription.acknowledge((deviceId, version) =>
        provider.updateCursor(scope, deviceId, version),
      );
      return () => {
        subscription.end();
        subscriptions.delete(subscription);
      };
    },

    async pull({ scope, cursor, limit, tables }: PullRequest): Promise<PullResponse> {
      const body = { cursor, pageLimit: toLimit(limit), tables: tables ?? null, latest: true };
      return toPullResponse(await http.post<PullReply>(path(scope, 'pull'), body));
    },

    async snapshot(request: SnapshotRequest): Promise<SnapshotResponse> {
      const { scope, pageSize, pageToken, tables } = request;
      const body = {
        pageToken: pageToken ?? null,
        pageLimit: toLimit(pageSize),
        tables: tables ?? null,
      };
      return toSnapshotResponse(await http.post<SnapshotReply>(path(scope, 'snapshot'), body));
    },

    async push(batch: PushBatch): Promise<PushResult> {
      return await pushBatch(batch, (ops) => http.post<PushReply>(path(batch.scope, 'push'), ops));
    },

    async updateCursor(scope: SyncScope, deviceId: string, version: number): Promise<void> {
      await http.post(path(scope, 'cursor'), { deviceId, version });
    },

    async dispose(): Promise<void> {
      for (const subscription of subscriptions) subscription.end();
      subscriptions.clear();
    },
  };
  return provider;
}
