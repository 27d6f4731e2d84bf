/**
 * What OR3 Chat declares and this package implements. The names and shapes are the app's:
 * its types and these are assignable to each other, so the package needs no dependency on
 * the app.
 */

// Sync, as client and server exchange it.

export interface SyncScope {
  workspaceId: string;
  projectId?: string;
}

export interface ChangeStamp {
  deviceId: string;
  opId: string;
  hlc: string;
  clock: number;
}

/** An op of a client's outbox. The app adds fields that only its outbox reads. */
export interface PendingOp {
  tableName: string;
  operation: 'put' | 'delete';
  pk: string;
  payload?: unknown;
  stamp: ChangeStamp;
}

export interface SyncChange {
  serverVersion: number;
  tableName: string;
  pk: string;
  op: 'put' | 'delete';
  payload?: unknown;
  stamp: ChangeStamp;
}

export interface PullRequest {
  scope: SyncScope;
  cursor: number;
  limit: number;
  tables?: string[];
  /** Of this package: a client that names its device is acknowledged for while it is idle. */
  deviceId?: string;
}

export interface PullResponse {
  changes: SyncChange[];
  nextCursor: number;
  hasMore: boolean;
  oldestRetainedVersion: number;
  requiresSnapshot: boolean;
}

export interface SnapshotRequest {
  scope: SyncScope;
  pageSize: number;
  pageToken?: string;
  tables?: string[];
}

export interface SnapshotRevision {
  clock: number;
  hlc: string;
  opId: string;
}

export type SnapshotItem =
  | {
      kind: 'row';
      tableName: string;
      pk: string;
      payload: unknown;
      revision: SnapshotRevision;
    }
  | {
      kind: 'tombstone';
      tableName: string;
      pk: string;
      revision: SnapshotRevision;
      serverDeletedAt: number;
    };

export interface SnapshotResponse {
  workspaceId: string;
  snapshotId: string;
  highWatermark: number;
  items: SnapshotItem[];
  nextPageToken: string | null;
}

export interface PushBatch {
  scope: SyncScope;
  ops: PendingOp[];
}

export type SyncErrorCode =
  | 'VALIDATION_ERROR'
  | 'UNAUTHORIZED'
  | 'CONFLICT'
  | 'NOT_FOUND'
  | 'RATE_LIMITED'
  | 'OVERSIZED'
  | 'NETWORK_ERROR'
  | 'SERVER_ERROR'
  | 'UNKNOWN';

export type PushWinner =
  | { kind: 'put'; payload: Record<string, unknown>; revision: SnapshotRevision }
  | { kind: 'delete'; revision: SnapshotRevision; serverDeletedAt?: number };

export interface PushResultItem {
  opId: string;
  success: boolean;
  serverVersion?: number;
  error?: string;
  errorCode?: SyncErrorCode;
  wasExisting?: boolean;
  applied?: boolean;
  replayed?: boolean;
  winner?: PushWinner;
}

export interface PushResult {
  results: PushResultItem[];
  serverVersion: number;
}

export interface SyncCapabilities {
  snapshotBootstrap?: 'snapshot-v1';
  historyRetention?: 'snapshot-v1';
}

// The client's side.

export interface SyncSubscribeOptions {
  cursor?: number;
  limit?: number;
}

export interface SyncProvider {
  id: string;
  mode: 'direct' | 'gateway';
  auth?: { providerId: string; template?: string };
  capabilities?: SyncCapabilities;
  subscribe(
    scope: SyncScope,
    tables: string[],
    onChanges: (changes: SyncChange[]) => void | Promise<void>,
    options?: SyncSubscribeOptions,
  ): Promise<() => void>;
  pull(request: PullRequest): Promise<PullResponse>;
  snapshot?(request: SnapshotRequest): Promise<SnapshotResponse>;
  push(batch: PushBatch): Promise<PushResult>;
  updateCursor(scope: SyncScope, deviceId: string, version: number): Promise<void>;
  gcTombstones?(scope: SyncScope, retentionSeconds: number): Promise<void>;
  gcChangeLog?(scope: SyncScope, retentionSeconds: number): Promise<void>;
  dispose(): Promise<void>;
}

// The server's side.

/** What is read of a request's H3Event. */
export interface RequestEvent {
  context: Record<string, unknown>;
}

export interface CursorUpdate {
  scope: { workspaceId: string };
  deviceId: string;
  version: number;
}

export interface GcRequest {
  scope: { workspaceId: string };
  retentionSeconds: number;
}

export interface UploadIntentReservationRequest {
  intentId: string;
  workspaceId: string;
  hash: string;
  mimeType: string;
  sizeBytes: number;
  /** In seconds since 1970. */
  expiresAt: number;
  workspaceQuotaBytes?: number;
}

export interface UploadIntentConsumptionRequest {
  intentId: string;
  workspaceId: string;
  hash: string;
  mimeType: string;
  sizeBytes: number;
  storageId: string;
}

export interface CanonicalStorageQueryRequest {
  scope: { workspaceId: string };
  kind: 'live_metadata' | 'reference_edges' | 'active_reservations';
  cursor?: string;
  limit?: number;
  hash?: string;
  /** In seconds since 1970. */
  now?: number;
}

export type CanonicalStorageRecord =
  | { kind: 'metadata'; hash: string; sizeBytes: number; storageId?: string; updatedAt: number }
  | { kind: 'reference'; hash: string; sourceTable: 'messages' | 'posts'; sourceId: string }
  | {
      kind: 'reservation';
      reservationId: string;
      hash: string;
      sizeBytes: number;
      expiresAt: number;
    };

export interface CanonicalStorageQueryResponse {
  items: CanonicalStorageRecord[];
  nextCursor?: string;
  hasMore: boolean;
}

export interface SyncGatewayAdapter {
  id: string;
  capabilities?: SyncCapabilities;
  pull(event: RequestEvent, input: PullRequest): Promise<PullResponse>;
  snapshot?(event: RequestEvent, input: SnapshotRequest): Promise<SnapshotResponse>;
  push(event: RequestEvent, input: PushBatch): Promise<PushResult>;
  updateCursor(event: RequestEvent, input: CursorUpdate): Promise<void>;
  gcTombstones?(event: RequestEvent, input: GcRequest): Promise<void>;
  gcChangeLog?(event: RequestEvent, input: GcRequest): Promise<void>;
  reserveUploadIntent?(event: RequestEvent, input: UploadIntentReservationRequest): Promise<void>;
  consumeUploadIntent?(event: RequestEvent, input: UploadIntentConsumptionRequest): Promise<void>;
  cancelUploadIntent?(
    event: RequestEvent,
    input: { workspaceId: string; intentId: string },
  ): Promise<void>;
  queryCanonicalStorage?(
    event: RequestEvent,
    input: CanonicalStorageQueryRequest,
  ): Promise<CanonicalStorageQueryResponse>;
}

// Users and workspaces.

export type WorkspaceRole = 'owner' | 'editor' | 'viewer';

export interface Identity {
  provider: string;
  providerUserId: string;
}

export interface WorkspaceEntry {
  id: string;
  name: string;
  description?: string | null;
  role: WorkspaceRole;
  /** In seconds since 1970. */
  createdAt?: number;
  isActive?: boolean;
}

export interface AuthWorkspaceStore {
  getUser?(
    input: Identity,
  ): Promise<{ userId: string; email?: string; displayName?: string } | null>;
  getOrCreateUser(
    input: Identity & { email?: string; displayName?: string },
  ): Promise<{ userId: string }>;
  getOrCreateDefaultWorkspace(
    userId: string,
  ): Promise<{ workspaceId: string; workspaceName: string; created?: boolean }>;
  getWorkspaceRole(input: { userId: string; workspaceId: string }): Promise<WorkspaceRole | null>;
  listUserWorkspaces(userId: string): Promise<WorkspaceEntry[]>;
  createWorkspace(input: {
    userId: string;
    name: string;
    description?: string | null;
  }): Promise<{ workspaceId: string }>;
  updateWorkspace(input: {
    userId: string;
    workspaceId: string;
    name: string;
    description?: string | null;
  }): Promise<void>;
  removeWorkspace(input: { userId: string; workspaceId: string }): Promise<void>;
  setActiveWorkspace(input: { userId: string; workspaceId: string }): Promise<void>;
  createInvite?(input: {
    workspaceId: string;
    email: string;
    role: WorkspaceRole;
    invitedByUserId: string;
    expiresAt: number;
    tokenHash: string;
  }): Promise<{ inviteId: string }>;
  listInvites?(input: {
    workspaceId: string;
    status?: InviteStatus;
    limit?: number;
  }): Promise<Invite[]>;
  revokeInvite?(input: {
    workspaceId: string;
    inviteId: string;
    revokedByUserId: string;
  }): Promise<void>;
  validateInvite?(input: InviteToken): Promise<InviteValidationResult>;
  consumeInvite?(input: InviteToken & { acceptedUserId: string }): Promise<InviteValidationResult>;
  acceptInviteAndProvisionUser?(
    input: Identity & InviteToken & { displayName?: string },
  ): Promise<InviteProvisionResult>;
}

export type InviteStatus = 'pending' | 'accepted' | 'revoked' | 'expired';

export interface Invite {
  id: string;
  workspaceId: string;
  email: string;
  role: WorkspaceRole;
  status: InviteStatus;
  invitedByUserId: string;
  expiresAt: number;
  tokenHash: string;
  acceptedAt: number | null;
  acceptedUserId: string | null;
  revokedAt: number | null;
  createdAt: number;
  updatedAt: number;
}

export interface InviteToken {
  workspaceId: string;
  email: string;
  tokenHash: string;
}

export type InviteRefusal = 'not_found' | 'expired' | 'revoked' | 'already_used' | 'token_mismatch';

export type InviteValidationResult =
  { ok: true; role: WorkspaceRole } | { ok: false; reason: InviteRefusal };

export type InviteProvisionResult =
  | {
      ok: true;
      userId: string;
      workspaceId: string;
      role: WorkspaceRole;
      createdUser: boolean;
    }
  | { ok: false; reason: InviteRefusal };

/** What the app's admin pages ask for about members and workspaces. */
export interface WorkspaceAccessStore {
  listMembers(input: {
    workspaceId: string;
  }): Promise<Array<{ userId: string; email?: string; role: WorkspaceRole }>>;
  upsertMember(input: {
    workspaceId: string;
    emailOrProviderId: string;
    role: WorkspaceRole;
    provider?: string;
  }): Promise<void>;
  setMemberRole(input: { workspaceId: string; userId: string; role: WorkspaceRole }): Promise<void>;
  removeMember(input: { workspaceId: string; userId: string }): Promise<void>;
}
