import type { Op, Payload, SnapshotItem } from '../wire.ts';
import type { Entry, Synced } from '../rules/view.ts';

/** Names a record in its workspace: the table's name, NUL, the pk. */
export type Key = string;

export function keyOf(tableName: string, pk: string): Key {
  return `${tableName}\0${pk}`;
}

export function partsOf(key: Key): { tableName: string; pk: string } {
  const [tableName, pk] = key.split('\0') as [string, string];
  return { tableName, pk };
}

/** What a device keeps of a record. */
export interface Known {
  key: Key;
  synced?: Synced | undefined;
  /** Its ops in the outbox, in the order in which they were made. */
  entries: readonly Entry[];
}

/** A record's new state; what is left out stays. */
export interface Changed {
  was: Known;
  /** null: forgotten. */
  synced?: Synced | null;
  entries?: readonly Entry[];
}

/** Of a device and its workspace, one in a store. */
export interface State {
  workspace: string;
  user: string | null;
  deviceId: string;
  /** The user has logged out: the next one is another device. */
  isClosed?: boolean;
  /** A user had logged out before it was made. */
  isNext?: boolean;
  /** The tables that are pulled; null: all. Cursor and proof belong to it. */
  filter: string[] | null;
  /** The scopes that are followed; null: all. Cursor and proof belong to them too. */
  scopes: string[] | null;
  /** Those that are to be followed; as a rule the same. */
  wished: string[] | null;
  /** The tables whose records the app sees. */
  tables: string[];
  /** The fields that it saw of these and of former ones; null: all. */
  fields: { [table: string]: readonly string[] | null };
  cursor: number;
  proof: string | null;
  /** A pull or snapshot has been completed: acknowledging is allowed. */
  isComplete: boolean;
  acknowledged: { version: number; at: number };
  /** Not below the hlc of any op that has left the outbox. */
  hlc: string | null;
  /** The number of sync calls begun, and of the latest one answered. */
  calls: number;
  answered: number;
  /** Changes with each snapshot: streams opened before are of no use. */
  generation: number;
  /** A snapshot has begun, and is finished before anything is pulled. */
  snapshot: Staged | null;
  /** The server lost history: a snapshot below the cursor is right. */
  historyLost: boolean;
}

/** What has arrived of a snapshot. */
export interface Staged {
  /** It lists what the wished scopes have beyond those that are followed. */
  isPart?: boolean;
  pages: number;
  records: number;
  nextPageToken: string | null;
  isWhole: boolean;
  highWatermark: number;
  proof: string | null;
}

/** Of a snapshot, before its first page. */
export const NOTHING: Staged = { pages: 0, records: 0, nextPageToken: null, isWhole: false, highWatermark: 0, proof: null };

/** An edit that did not come through as its user wanted it. */
export interface Conflict {
  /** The opId of the edit. */
  id: string;
  /** `lost`: somebody else's edit won. `overwritten`: it came later, without knowing this one.
   * `changed`: it was to be stored only if nobody else edited the same. `refused`: the server
   * does not accept it. `restored`: the server was restored to a time before it. */
  kind: 'lost' | 'overwritten' | 'changed' | 'refused' | 'restored';
  tableName: string;
  pk: string;
  /** The record as this user wanted it; null: deleted. */
  mine: Payload | null;
  /** The record as the server had it then; null: deleted; undefined: not told. */
  theirs?: Payload | null | undefined;
  /** Of an edit of some fields: which did not come through. */
  fields?: string[] | undefined;
  /** Why it was refused. */
  error?: { code: string; message: string; sqlState?: string | undefined; constraint?: string | undefined };
  /** Milliseconds since 1970. */
  at: number;
}

/** One synchronization, for support. */
export interface Run {
  at: number;
  /** Milliseconds. */
  took: number;
  pushed: number;
  pulled: number;
  error?: string;
}

/** One atomic change of a store, or a consistent look at it. Its methods are for the body of
 * `Store.transaction`, which waits for nothing else. */
export interface Tx {
  state(): Promise<State | undefined>;
  setState(state: State): Promise<void>;
  known(keys: readonly Key[]): Promise<Known[]>;
  /** Stores what changed, and shows the app each record as its user now sees it. */
  save(changes: readonly Changed[]): Promise<void>;
  /** Shows the app these records, whatever it sees now. */
  show(keys: readonly Key[]): Promise<void>;
  /** The whole outbox, in the order in which its ops were made. */
  outbox(): Promise<Entry[]>;
  /** From now on a server may have these ops of the outbox. */
  markSent(ops: readonly Op[]): Promise<void>;
  /** How many ops are in it, and how many of them were refused for now. */
  counts(): Promise<{ pending: number; blocked: number }>;
  /** The keys of all records of which something is synced. */
  syncedKeys(): Promise<Key[]>;
  stage(page: number, items: SnapshotItem[]): Promise<void>;
  staged(page: number): Promise<SnapshotItem[]>;
  unstage(): Promise<void>;
  conflicts(): Promise<Conflict[]>;
  /** In place of the one that has its id. */
  putConflict(conflict: Conflict): Promise<void>;
  removeConflict(id: string): Promise<void>;
  runs(): Promise<Run[]>;
  /** Keeps the last ones. */
  log(run: Run): Promise<void>;
  /** A part of the app's rows, in the order of their keys, those after one. */
  rows(tableName: string, after: string | null, limit: number): Promise<Row[]>;
  /** Forgets everything, the app's rows of these tables too. */
  clear(tables: readonly string[]): Promise<void>;
}

/** The runs that a store keeps. */
export const RUNS_KEPT = 100;

export interface Row {
  pk: string;
  value: unknown;
}

/** What a store keeps beside the app's rows. */
export type Part = 'state' | 'synced' | 'outbox' | 'staged' | 'conflict' | 'run';

export interface Store {
  /** Runs the body alone among all that write; all it did is kept, or nothing if it fails. One that
   * names the parts that it uses keeps nobody waiting who uses others. */
  transaction<T>(body: (tx: Tx) => Promise<T>, parts?: readonly Part[]): Promise<T>;
  /** The same for a body that changes nothing. */
  read<T>(body: (tx: Tx) => Promise<T>, parts?: readonly Part[]): Promise<T>;
  /** Names the store among those that tabs share. */
  readonly name: string;
}
