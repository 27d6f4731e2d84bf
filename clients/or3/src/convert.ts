/** Between sync_ext's wire and the app's types: requests one way, replies the other. */
import type {
  PendingOp,
  PullResponse,
  PushResult,
  PushResultItem,
  PushWinner,
  SnapshotItem,
  SnapshotResponse,
  SyncErrorCode,
} from './host.ts';
import type { Op, PullReply, PushItem, PushReply, SnapshotReply, Winner } from './wire.ts';

/** Without what only the outbox reads, and without keys that mean something to sync_ext. */
export function toOp({ tableName, operation, pk, payload, stamp }: PendingOp): Op {
  const { deviceId, opId, hlc, clock } = stamp;
  const op: Op = { tableName, operation, pk, stamp: { deviceId, opId, hlc, clock } };
  if (payload !== undefined) op.payload = payload;
  return op;
}

/** A page size of the app: any number, even none. NULL is sync_ext's default. */
export function toLimit(limit: number): number | null {
  return Number.isFinite(limit) ? Math.max(1, Math.min(Math.trunc(limit), 1000)) : null;
}

export function toPullResponse(reply: PullReply): PullResponse {
  const { changes, nextCursor, hasMore, oldestRetainedVersion, requiresSnapshot } = reply;
  return {
    changes: changes.map(({ serverVersion, tableName, pk, op, payload, stamp }) => {
      const change = { serverVersion, tableName, pk, op, stamp };
      return payload === undefined ? change : { ...change, payload };
    }),
    nextCursor,
    hasMore,
    oldestRetainedVersion,
    requiresSnapshot,
  };
}

export function toSnapshotResponse(reply: SnapshotReply): SnapshotResponse {
  const { workspaceId, snapshotId, highWatermark, nextPageToken } = reply;
  const items = reply.items.map(({ kind, tableName, pk, payload, revision, serverDeletedAt }) => {
    const item: SnapshotItem =
      kind === 'row'
        ? { kind, tableName, pk, payload, revision }
        : { kind, tableName, pk, revision, serverDeletedAt: serverDeletedAt ?? 0 };
    return item;
  });
  // The app demands the order of JavaScript's strings. sync_ext has that of bytes, which is
  // another one above U+FFFF.
  items.sort((a, b) => compare(a.tableName, b.tableName) || compare(a.pk, b.pk));
  return { workspaceId, snapshotId, highWatermark, items, nextPageToken };
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

export function toPushResult(reply: PushReply, ops: PendingOp[]): PushResult {
  const payloads = new Map<number, Record<string, unknown>>();
  for (const item of reply.results) {
    const winner = item.success ? item.winner : undefined;
    if (winner?.payload) payloads.set(winner.serverVersion, winner.payload);
  }
  const results = reply.results.map((item, i) => toItem(item, ops[i]!.stamp.opId, payloads));
  return { results, serverVersion: reply.serverVersion };
}

function toItem(
  item: PushItem,
  opId: string,
  payloads: Map<number, Record<string, unknown>>,
): PushResultItem {
  if (!item.success) {
    return { opId, success: false, error: item.error, errorCode: toErrorCode(item) };
  }
  const { serverVersion, applied, created, replayed } = item;
  const result: PushResultItem = {
    opId,
    success: true,
    serverVersion,
    applied,
    wasExisting: !created,
  };
  if (replayed) result.replayed = true;
  const winner = item.winner && toWinner(item.winner, payloads);
  if (winner) result.winner = winner;
  return result;
}

/** Undefined if the reply has no payload of it: the app expects one, and the next pull has it. */
function toWinner(
  { kind, serverVersion, revision, serverDeletedAt }: Winner,
  payloads: Map<number, Record<string, unknown>>,
): PushWinner | undefined {
  if (kind === 'delete') {
    return serverDeletedAt === undefined ? { kind, revision } : { kind, revision, serverDeletedAt };
  }
  const payload = payloads.get(serverVersion);
  return payload && { kind, payload, revision };
}

const errorCodes: Record<string, SyncErrorCode> = {
  VALIDATION_ERROR: 'VALIDATION_ERROR',
  // All of these are final; the app tries others again.
  OVERSIZED: 'VALIDATION_ERROR',
  REJECTED: 'VALIDATION_ERROR',
  CONSTRAINT: 'VALIDATION_ERROR',
  READ_ONLY: 'UNAUTHORIZED',
  UNAUTHORIZED: 'UNAUTHORIZED',
  CONFLICT: 'CONFLICT',
};

function toErrorCode({ errorCode, retry }: { errorCode: string; retry?: true }): SyncErrorCode {
  return retry ? 'SERVER_ERROR' : (errorCodes[errorCode] ?? 'UNKNOWN');
}
