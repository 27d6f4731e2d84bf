/** The app's sync endpoints, answered by sync_ext. */
import type {
  CanonicalStorageQueryRequest,
  CanonicalStorageQueryResponse,
  CursorUpdate,
  GcRequest,
  PullRequest,
  PullResponse,
  PushBatch,
  PushResult,
  RequestEvent,
  SnapshotRequest,
  SnapshotResponse,
  SyncGatewayAdapter,
  UploadIntentConsumptionRequest,
  UploadIntentReservationRequest,
} from '../host.ts';
import type { GcReply, PullReply, PushReply, SnapshotReply } from '../wire.ts';
import { toLimit, toPullResponse, toSnapshotResponse } from '../convert.ts';
import { pushBatch } from '../push.ts';
import { userOf } from '../session.ts';
import { deviceId, invalid, retention, tablesOf, version, workspaceOf } from './arguments.ts';
import { callFor, type Database } from './database.ts';
import { acknowledge, acknowledgeIdle } from './devices.ts';
import { pullPastHorizon } from './past_horizon.ts';
import { queryStorage } from './storage.ts';
import { cancelUpload, consumeUpload, reserveUpload } from './uploads.ts';

export interface AdapterOptions {
  database: Database;
  /** The user of a request; by default that of the session that the app has resolved. */
  userOf?: (event: RequestEvent) => string;
}

export const providerId = 'sync-ext';

/**
 * `scope.projectId` is ignored. The app's client knows no change that says that a record left a
 * scope. Told as a delete, it would hide the record for good, also where it comes back at the same
 * revision; and the client keeps no proof with which another list could be asked for.
 */
export class SyncExtGatewayAdapter implements SyncGatewayAdapter {
  readonly id = providerId;
  readonly capabilities = {
    snapshotBootstrap: 'snapshot-v1',
    historyRetention: 'snapshot-v1',
  } as const;
  readonly #database: Database;
  readonly #userOf: (event: RequestEvent) => string;

  constructor(options: AdapterOptions) {
    this.#database = options.database;
    this.#userOf = options.userOf ?? userOf;
  }

  async push(event: RequestEvent, input: PushBatch): Promise<PushResult> {
    const [user, workspaceId] = [this.#userOf(event), workspaceOf(input.scope)];
    return await pushBatch(input, (ops) =>
      this.#call<PushReply>(user, 'sync_push($2, $3::json)', [workspaceId, ops]),
    );
  }

  async pull(event: RequestEvent, input: PullRequest): Promise<PullResponse> {
    const [user, workspaceId] = [this.#userOf(event), workspaceOf(input.scope)];
    const cursor = version(input.cursor, 'cursor');
    const [limit, tables] = [toLimit(input.limit), tablesOf(input.tables)];
    // The app takes every change for state, so those that lost must not be among them.
    const reply = await this.#call<PullReply>(user, 'sync_pull($2, $3, $4, $5, latest => true)', [
      workspaceId,
      cursor,
      limit,
      tables,
    ]);
    if (reply.reason === 'cursor_expired') {
      const head = reply.serverVersion;
      return await pullPastHorizon(this.#database, {
        user,
        workspaceId,
        cursor,
        limit,
        tables,
        head,
      });
    }
    const isIdle = reply.changes.length === 0 && !reply.hasMore && !reply.requiresSnapshot;
    if (isIdle && input.deviceId && cursor > 0) {
      await acknowledgeIdle(this.#database, user, workspaceId, input.deviceId, cursor);
    }
    return toPullResponse(reply);
  }

  async snapshot(event: RequestEvent, input: SnapshotRequest): Promise<SnapshotResponse> {
    const [user, workspaceId] = [this.#userOf(event), workspaceOf(input.scope)];
    const { pageSize, pageToken } = input;
    if (!Number.isInteger(pageSize) || pageSize < 1 || pageSize > 1000) {
      invalid('The pageSize must be an integer from 1 to 1000.');
    }
    const reply = await this.#call<SnapshotReply>(user, 'sync_snapshot($2, $3, $4, $5)', [
      workspaceId,
      pageToken ?? null,
      pageSize,
      tablesOf(input.tables),
    ]);
    return toSnapshotResponse(reply);
  }

  async updateCursor(event: RequestEvent, input: CursorUpdate): Promise<void> {
    const [user, workspaceId] = [this.#userOf(event), workspaceOf(input.scope)];
    const device = deviceId(input.deviceId);
    await acknowledge(this.#database, user, workspaceId, device, version(input.version, 'version'));
  }

  /** sync_ext purges deletes and superseded changes together: both calls do the same. */
  async gcTombstones(event: RequestEvent, input: GcRequest): Promise<void> {
    await this.#gc(event, input);
  }

  async gcChangeLog(event: RequestEvent, input: GcRequest): Promise<void> {
    await this.#gc(event, input);
  }

  async reserveUploadIntent(
    event: RequestEvent,
    input: UploadIntentReservationRequest,
  ): Promise<void> {
    await reserveUpload(this.#database, this.#userOf(event), input);
  }

  async consumeUploadIntent(
    event: RequestEvent,
    input: UploadIntentConsumptionRequest,
  ): Promise<void> {
    await consumeUpload(this.#database, this.#userOf(event), input);
  }

  async cancelUploadIntent(
    event: RequestEvent,
    input: { workspaceId: string; intentId: string },
  ): Promise<void> {
    await cancelUpload(this.#database, this.#userOf(event), input);
  }

  async queryCanonicalStorage(
    event: RequestEvent,
    input: CanonicalStorageQueryRequest,
  ): Promise<CanonicalStorageQueryResponse> {
    return await queryStorage(this.#database, this.#userOf(event), input);
  }

  /** In many short calls: each holds the workspace's lock for a few milliseconds only. */
  async #gc(event: RequestEvent, input: GcRequest): Promise<void> {
    const [user, workspaceId] = [this.#userOf(event), workspaceOf(input.scope)];
    const seconds = retention(input.retentionSeconds);
    const call = 'sync_gc($2, make_interval(secs => $3::double precision))';
    let hasMore = true;
    while (hasMore) {
      ({ hasMore } = await this.#call<GcReply>(user, call, [workspaceId, seconds]));
    }
  }

  #call<T>(user: string, call: string, values: unknown[]): Promise<T> {
    return callFor<T>(this.#database, user, call, values);
  }
}
