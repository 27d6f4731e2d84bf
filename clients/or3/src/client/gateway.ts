/** The app's client, by way of the app's own server. */
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
import { Http, type HttpOptions } from './request.ts';
import { Subscription, type FollowOptions } from './subscription.ts';

export interface GatewayProviderOptions extends HttpOptions, FollowOptions {
  id?: string;
  /** Before `/api/sync/...`; by default the page's own origin. */
  baseUrl?: string;
  /** Milliseconds between two polls, by default 2,000; up to a quarter more, by chance. */
  pollIntervalMs?: number;
}

/** Polls, since the app's server has no streams. */
export function createGatewaySyncProvider(options: GatewayProviderOptions = {}): SyncProvider {
  const http = new Http(options.baseUrl ?? '', { credentials: 'include', ...options });
  const subscriptions = new Set<Subscription>();
  const post = <T>(name: string, body: unknown, signal?: AbortSignal) =>
    http.post<T>(`/api/sync/${name}`, body, signal);

  async function poll(
    subscription: Subscription,
    tables: string[],
    limit: number,
  ): Promise<number> {
    const { scope, signal } = subscription;
    const deviceId = options.deviceId?.();
    let hasMore = true;
    while (hasMore && !signal.aborted) {
      const { cursor } = subscription;
      const request = { scope, cursor, limit, tables, ...(deviceId && { deviceId }) };
      const page = await post<PullResponse>('pull', request, signal);
      if (page.requiresSnapshot) subscription.requireSnapshot();
      await subscription.apply(page.changes, page.nextCursor);
      hasMore = page.hasMore && subscription.cursor > cursor;
    }
    return (options.pollIntervalMs ?? 2000) * (1 + Math.random() / 4);
  }

  const provider: SyncProvider = {
    id: options.id ?? 'sync-ext',
    mode: 'gateway',
    capabilities: { snapshotBootstrap: 'snapshot-v1', historyRetention: 'snapshot-v1' },

    async subscribe(
      scope: SyncScope,
      tables: string[],
      onChanges: (changes: SyncChange[]) => void | Promise<void>,
      { cursor = 0, limit = 100 }: SyncSubscribeOptions = {},
    ): Promise<() => void> {
      const subscription = new Subscription(scope, cursor, onChanges, options);
      subscriptions.add(subscription);
      void subscription.run(() => poll(subscription, tables, limit));
      void subscription.acknowledge((deviceId, version) =>
        provider.updateCursor(scope, deviceId, version),
      );
      return () => {
        subscription.end();
        subscriptions.delete(subscription);
      };
    },

    async pull(request: PullRequest): Promise<PullResponse> {
      return await post('pull', request);
    },

    async snapshot(request: SnapshotRequest): Promise<SnapshotResponse> {
      return await post('snapshot', request);
    },

    async push(batch: PushBatch): Promise<PushResult> {
      return await post('push', batch);
    },

    async updateCursor(scope: SyncScope, deviceId: string, version: number): Promise<void> {
      await post('update-cursor', { scope, deviceId, version });
    },

    async gcTombstones(scope: SyncScope, retentionSeconds: number): Promise<void> {
      await post('gc-tombstones', { scope, retentionSeconds });
    },

    async gcChangeLog(scope: SyncScope, retentionSeconds: number): Promise<void> {
      await post('gc-change-log', { scope, retentionSeconds });
    },

    async dispose(): Promise<void> {
      for (const subscription of subscriptions) subscription.end();
      subscriptions.clear();
    },
  };
  return provider;
}
