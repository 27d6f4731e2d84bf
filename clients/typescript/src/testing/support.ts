import { isEqual } from '../rules/json.ts';
import type { Entry, Synced } from '../rules/view.ts';
import { type Conflict, type Key, type Run, type State, type Store, type Tx, keyOf } from '../store/store.ts';
import type { Json, Op, Payload, SnapshotItem } from '../wire.ts';

/** A store that is empty, of an app with the tables `notes` and `files`, whose key is `id`. */
export interface StoreUnderTest {
  store: Store;
  /** The same store as another program finds it, if it lasts longer than its object. */
  reopen?(): Promise<Store>;
}

/** What holds of each store, by the sentence that says it. */
export interface Claims {
  [sentence: string]: (made: StoreUnderTest) => Promise<void>;
}

export const TABLES = ['notes', 'files'];

/** All that a store has, in an order of its own. */
export async function contentOf(tx: Tx) {
  const outbox = await tx.outbox();
  const keys = new Set([...await tx.syncedKeys(), ...outbox.map(({ op }) => keyOf(op.tableName, op.pk))]);
  return {
    state: await tx.state(),
    outbox,
    counts: await tx.counts(),
    known: await tx.known([...keys].sort()),
    staged: [await tx.staged(0), await tx.staged(1)],
    conflicts: (await tx.conflicts()).sort((a, b) => (a.id < b.id ? -1 : 1)),
    runs: await tx.runs(),
    rows: [await tx.rows('notes', null, 1000), await tx.rows('files', null, 1000)],
  };
}

/** What the app sees of a table: the number in each row. */
export async function shown(store: Store, tableName: string): Promise<{ [pk: string]: unknown }> {
  const rows = await store.read((tx) => tx.rows(tableName, null, 1000));
  return Object.fromEntries(rows.map(({ pk, value }) => [pk, (value as Payload).n]));
}

/** Adds entries at the end of the outbox, as many at once as are of different records. */
export async function add(tx: Tx, ...entries: Entry[]): Promise<void> {
  const keyOfEntry = ({ op }: Entry) => keyOf(op.tableName, op.pk);
  for (let at = 0; at < entries.length;) {
    const part = new Map<Key, Entry>();
    for (const entry of entries.slice(at)) {
      if (part.has(keyOfEntry(entry))) break;
      part.set(keyOfEntry(entry), entry);
    }
    at += part.size;
    const known = await tx.known([...part.keys()]);
    await tx.save(known.map((was) => ({ was, entries: [...was.entries, part.get(was.key)!] })));
  }
}

export async function edit(tx: Tx, pk: string, by: (entries: readonly Entry[]) => Entry[]): Promise<void> {
  const [was] = await tx.known([keyOf('notes', pk)]);
  await tx.save([{ was: was!, entries: by(was!.entries) }]);
}

export async function sync(tx: Tx, pk: string, n: number, tableName = 'notes'): Promise<void> {
  const [was] = await tx.known([keyOf(tableName, pk)]);
  await tx.save([{ was: was!, synced: synced(pk, n) }]);
}

export function synced(id: string, n: number): Synced {
  return { version: n, register: { clock: 1, hlc: 'h', opId: `s${n}` }, newest: `s${n}`, payload: { id, n }, clock: 1 };
}

let ops = 0;

export function put(pk: string, n: number, tableName = 'notes'): Entry {
  const opId = `${++ops}`;
  const op: Op = { tableName, operation: 'put', pk, payload: { id: pk, n }, parent: 'none', stamp: { clock: 2 + ops, hlc: 'h', opId, deviceId: 'd' } };
  return { op, sent: false };
}

export function remove(pk: string, n: number, tableName = 'notes'): Entry {
  const { op: { payload: _, ...op } } = put(pk, n, tableName);
  return { op: { ...op, operation: 'delete' }, sent: false };
}

export const pkOf = ({ op }: Entry) => op.pk;
export const nOf = ({ op }: Entry) => op.payload!.n!;

export function item(pk: string, n: number): SnapshotItem {
  return { kind: 'row', tableName: 'notes', pk, payload: { n }, revision: { clock: 1, hlc: 'h', opId: 'o' }, serverVersion: n };
}

export function conflict(pk: string, id = 'c'): Conflict {
  return { id, kind: 'lost', tableName: 'notes', pk, mine: { n: 1 }, theirs: null, at: 5 };
}

export function run(at: number): Run {
  return { at, took: 1, pushed: 2, pulled: 3 };
}

export function newState(more: Partial<State> = {}): State {
  return {
    workspace: 'w', user: null, deviceId: 'd', filter: null, scopes: null, wished: null, tables: TABLES, fields: { notes: null, files: null }, cursor: 0, proof: null, isComplete: false,
    acknowledged: { version: 0, at: 0 }, hlc: null, calls: 0, answered: 0, generation: 0, snapshot: null, historyLost: false,
    ...more,
  };
}

/** Fails unless both are the same JSON; what is undefined is as what is not there. */
export function equal(actual: unknown, expected: unknown): void {
  const [a, b] = [actual, expected].map((value) => JSON.parse(JSON.stringify(value ?? null)) as Json);
  if (!isEqual(a, b)) throw new Error(`expected ${JSON.stringify(b)}\n     not ${JSON.stringify(a)}`);
}
