/** The replies of sync_ext, as far as they are read here. docs/protocol.md has the whole. */

export interface Revision {
  clock: number;
  hlc: string;
  opId: string;
}

export interface Op {
  tableName: string;
  operation: 'put' | 'delete';
  pk: string;
  payload?: unknown;
  stamp: Revision & { deviceId: string };
}

export interface Winner {
  kind: 'put' | 'delete';
  serverVersion: number;
  /** Once for each record and reply, and absent if all together are too large. */
  payload?: Record<string, unknown>;
  revision: Revision;
  serverDeletedAt?: number;
}

export type PushItem =
  | {
      opId: string;
      success: true;
      serverVersion: number;
      applied: boolean;
      created?: true;
      replayed?: true;
      winner?: Winner;
    }
  | {
      opId: string | null;
      success: false;
      errorCode: string;
      error: string;
      retry?: true;
    };

export interface PushReply {
  results: PushItem[];
  serverVersion: number;
}

export interface Change {
  serverVersion: number;
  tableName: string;
  pk: string;
  op: 'put' | 'delete';
  payload?: unknown;
  stamp: Revision & { deviceId: string };
}

export interface PullReply {
  changes: Change[];
  nextCursor: number;
  hasMore: boolean;
  serverVersion: number;
  oldestRetainedVersion: number;
  requiresSnapshot: boolean;
  reason?: 'unknown_workspace' | 'history_diverged' | 'cursor_ahead' | 'cursor_expired';
}

export interface SnapshotReply {
  workspaceId: string;
  snapshotId: string;
  highWatermark: number;
  items: Array<{
    kind: 'row' | 'tombstone';
    tableName: string;
    pk: string;
    payload?: unknown;
    revision: Revision;
    serverDeletedAt?: number;
  }>;
  nextPageToken: string | null;
}

export interface CursorReply {
  lastSeenVersion: number;
  advanced: boolean;
}

export interface GcReply {
  hasMore: boolean;
}
