/** What a client stores, as it is in its database. */
import type { Conflict, Payload } from '../../typescript/src/index.ts';
import type { State } from '../../typescript/src/store/store.ts';
import type { Client } from './client.ts';
import { SCOPED } from './history.ts';
import { DATABASE } from './names.ts';
import { type Known, NOTHING, type Pending } from './view.ts';

export type Key = string;
export const keyOf = ({ tableName, pk }: { tableName: string; pk: string }): Key => `${tableName}\0${pk}`;

/** A client's database after a transaction. */
export interface Stored {
  state: State | undefined;
  known: Map<Key, Known>;
  pending: Pending[];
  /** By id. */
  conflicts: Map<string, Conflict>;
}

/** The conflicts about a record that a transaction has told, or told more of. */
export function news(was: Stored, now: Stored, key: Key): Conflict[] {
  return [...now.conflicts].filter(([id, conflict]) => keyOf(conflict) === key && was.conflicts.get(id) !== conflict)
    .map(([, conflict]) => conflict);
}

export const EMPTY: Stored = { state: undefined, known: new Map(), pending: [], conflicts: new Map() };

export function readStored({ origin }: Client): Stored {
  const known = new Map<Key, Known>();
  const rows = new Map<string, Map<string, Payload>>();
  type StoredSynced = Known & { key: Key; payload?: Payload | null };
  const chunks = origin.read<{ values: StoredSynced[] }>(DATABASE, '_sync_synced');
  for (const { key, ...synced } of [...chunks.values()].flatMap(({ values }) => values)) {
    if (known.has(key)) throw new Error(`two are synced of ${key}`);
    const [table, pk] = key.split('\0') as [string, string];
    let payload: Payload | null | undefined = synced.payload;
    if (payload === undefined) {
      if (!rows.has(table)) rows.set(table, origin.read(DATABASE, table));
      payload = rows.get(table)!.get(pk);
    }
    known.set(key, payload === undefined ? { ...NOTHING, clock: synced.clock } : { ...synced, payload, fields: synced.fields ?? {} });
  }
  const outbox = origin.read<{ values: Pending[] }>(DATABASE, '_sync_outbox');
  return {
    state: origin.read<State>(DATABASE, '_sync_state').get('state'),
    known,
    // The keys are numbers, read in their order.
    pending: [...outbox.values()].flatMap(({ values }) => values),
    conflicts: origin.read(DATABASE, '_sync_conflict'),
  };
}

/** Whether a record is inside the scopes that a client follows. */
export function isInside(key: Key, payload: Payload | null, scopes: string[] | null | undefined): boolean {
  return !scopes || !SCOPED.includes(key.split('\0')[0]!) || scopes.includes(String(payload?.['in'] ?? ''));
}

/** It changes with each snapshot that is stored. */
export function ageOf({ state }: Stored): string {
  return `${state?.deviceId} ${state?.generation}`;
}

/** It changes when something comes of a call. */
export function placeOf({ state, pending }: Stored): string {
  return JSON.stringify([state?.cursor, state?.proof, state?.generation, pending.length]);
}

export function byRecord(pending: readonly Pending[]): Map<Key, Pending[]> {
  const byKey = new Map<Key, Pending[]>();
  for (const entry of pending) {
    const key = keyOf(entry.op);
    if (byKey.has(key)) byKey.get(key)!.push(entry);
    else byKey.set(key, [entry]);
  }
  return byKey;
}
