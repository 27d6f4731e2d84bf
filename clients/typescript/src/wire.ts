/** The JSON of sync_ext's calls and replies, as far as a client reads it. */

export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };
export type Payload = { [name: string]: Json };

/** What decides between two ops on a record: the higher one wins. */
export interface Revision {
  clock: number;
  hlc: string;
  opId: string;
}

export interface Stamp extends Revision {
  deviceId: string;
}

/** For each field that a patch holds, that patch's revision. */
export type Fields = { [name: string]: Revision };

export interface Op {
  tableName: string;
  operation: 'put' | 'delete' | 'patch';
  pk: string;
  payload?: Payload;
  /** Of a patch: the revision of the put that it edits. */
  base?: Revision;
  /** What the author saw: the opId of the record's newest entry, or `none`. */
  parent?: string;
  /** A condition: as `parent`, or of a patch the holder of each field. */
  expected?: string | { [field: string]: string };
  stamp: Stamp;
}

/** The record as the server has it, beside an op that lost or was refused. */
export interface Winner {
  kind: 'put' | 'delete';
  serverVersion: number;
  revision: Revision;
  payload?: Payload;
  fields?: Fields;
}

export interface PushResult {
  opId: string;
  success: boolean;
  serverVersion?: number;
  applied?: boolean;
  replayed?: boolean;
  payload?: Payload;
  winner?: Winner;
  current?: Winner;
  overwrote?: string;
  lost?: string[];
  errorCode?: string;
  error?: string;
  sqlState?: string;
  constraint?: string;
  retry?: boolean;
}

export interface PushReply {
  results: PushResult[];
  serverVersion: number;
}

export interface Change {
  serverVersion: number;
  tableName: string;
  pk: string;
  /** `leave`: it went outside the scopes that are followed. */
  op: 'put' | 'delete' | 'patch' | 'leave';
  applied: boolean;
  payload?: Payload;
  base?: Revision;
  fields?: Fields;
  /** Where the table has a scope field, and scopes are followed. */
  scope?: string;
  overwrote?: string;
  stamp: Stamp;
}

export type Reason = 'cursor_expired' | 'history_diverged' | 'cursor_ahead' | 'unknown_workspace' | 'scopes_changed';

export interface PullReply {
  changes: Change[];
  nextCursor: number;
  hasMore: boolean;
  serverVersion: number;
  requiresSnapshot: boolean;
  reason?: Reason;
  proof: string | null;
}

export interface SnapshotItem {
  kind: 'row' | 'tombstone';
  tableName: string;
  pk: string;
  payload?: Payload;
  revision: Revision;
  fields?: Fields;
  /** Of the newest entry, where a patch is newer than the revision. */
  opId?: string;
  scope?: string;
  serverVersion: number;
}

export interface SnapshotReply {
  items: SnapshotItem[];
  highWatermark: number;
  nextPageToken: string | null;
  proof: string | null;
}
