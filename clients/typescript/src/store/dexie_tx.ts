import Dexie, { type DBCore } from 'dexie';
import { groupBy } from '../rules/group.ts';
import { isEqual, pick } from '../rules/json.ts';
import { type Entry, type Synced, UNKNOWN, see } from '../rules/view.ts';
import type { Op, Payload, SnapshotItem } from '../wire.ts';
import { Chunks, type Layout } from './chunks.ts';
import { replacements } from './replacements.ts';
import { all, done, results } from './requests.ts';
import { type Changed, type Conflict, type Key, type Known, type Part, RUNS_KEPT, type Row, type Run, type State, type Tx, keyOf, partsOf } from './store.ts';

/** The stores beside the app's, in the same database, so that one transaction changes both. */
export const STORES: { [name in OwnStore]: string } = {
  _sync_state: '',
  _sync_synced: '++seq, *keys',
  _sync_outbox: '++seq, *keys, *marked',
  _sync_staged: '',
  _sync_conflict: 'id',
  _sync_run: '++',
};
type OwnStore = `_sync_${Part}`;
export const OWN = Object.keys(STORES) as OwnStore[];

/** What is kept of a synced record; without a payload, the app's row is it. */
type StoredSynced = Omit<Synced, 'payload'> & { key: Key; payload?: Payload | null };

const SYNCED: Layout<StoredSynced> = { size: 8, keyOf: ({ key }) => key, idOf: ({ key }) => key };
const OUTBOX: Layout<Entry> = {
  size: 100,
  keyOf: ({ op }) => keyOf(op.tableName, op.pk),
  idOf: ({ op }) => op.stamp.opId,
  isMarked: ({ retry }) => retry !== undefined,
};

type AppRows = ReadonlyMap<Key, Payload | undefined>;

/** What the app sees of a record, null for nothing. */
interface Shown {
  key: Key;
  payload: Payload | null;
}

/** Up to so many keys are looked up one by one. */
export const FEW = 30;

/** What the store does with a table of the app. */
export interface ShownTable {
  /** The fields that this version of the app knows; others are kept, but not shown. */
  fields?: readonly string[] | undefined;
}

export type ShownTables = ReadonlyMap<string, ShownTable>;

/** A transaction of IndexedDB. The stores beside the app's are used directly, the app's through
 * Dexie, so that its live queries notice. */
export class DexieTx implements Tx {
  readonly #trans: IDBTransaction;
  readonly #tables: ShownTables;
  /** Without it the app writes its rows itself. */
  readonly #core: DBCore | undefined;
  readonly #synced: Chunks<StoredSynced>;
  readonly #outbox: Chunks<Entry>;
  /** Records whose payload is the app's row. */
  readonly #inRow = new Set<Key>();
  /** The app's rows, of the records that were read last. */
  appRows: AppRows = new Map();

  constructor(trans: IDBTransaction, tables: ShownTables, core?: DBCore) {
    this.#trans = trans;
    this.#tables = tables;
    this.#core = core;
    this.#synced = new Chunks(trans, '_sync_synced', SYNCED);
    this.#outbox = new Chunks(trans, '_sync_outbox', OUTBOX);
  }

  #store(name: string): IDBObjectStore {
    return this.#trans.objectStore(name);
  }

  async state(): Promise<State | undefined> {
    return await done(this.askState());
  }

  askState(): IDBRequest<State | undefined> {
    return this.#store('_sync_state').get('state');
  }

  async setState(state: State): Promise<void> {
    await done(this.#store('_sync_state').put(state, 'state'));
  }

  async known(keys: readonly Key[]): Promise<Known[]> {
    if (keys.length === 0) return [];
    if (keys.length <= FEW) {
      const { last, known } = this.ask(keys);
      await done(last);
      return known();
    }
    const [synced, entries] = await all([this.#synced.some(keys), this.#outbox.all()]);
    // Of a record that nobody knows the row is not asked for.
    const met = new Set([...synced.map(SYNCED.keyOf), ...entries.map(OUTBOX.keyOf)]);
    const shown = keys.filter((key) => met.has(key) && this.#tables.has(partsOf(key).tableName));
    const rows = await results(shown.map((key) => this.#askRow(key)));
    return this.#gather(keys, synced, entries, new Map(shown.map((key, i) => [key, rows[i]])));
  }

  #askRow(key: Key): IDBRequest<Payload | undefined> {
    const { tableName, pk } = partsOf(key);
    return this.#store(tableName).get(pk);
  }

  /** Asks for a few records. They are known once the last request is done. */
  ask(keys: readonly Key[]): { last: IDBRequest; known: () => Known[] } {
    const asked = keys.map((key) => ({
      key,
      row: this.#tables.has(partsOf(key).tableName) ? this.#askRow(key) : undefined,
      synced: this.#synced.ask(key),
      entries: this.#outbox.ask(key),
    }));
    const known = () => this.#gather(
      keys,
      this.#synced.meet(asked.flatMap(({ synced }) => synced.result)),
      this.#outbox.meet(asked.flatMap(({ entries }) => entries.result)),
      new Map(asked.map(({ key, row }) => [key, row?.result])),
    );
    return { last: asked.at(-1)!.entries, known };
  }

  #gather(keys: readonly Key[], synced: StoredSynced[], entries: Entry[], rows: AppRows): Known[] {
    this.appRows = rows;
    const syncedOf = new Map(synced.map((stored) => [stored.key, stored]));
    const entriesOf = groupBy(entries, ({ op }) => keyOf(op.tableName, op.pk));
    return keys.map((key) => {
      const stored = syncedOf.get(key);
      return { key, synced: stored && this.#toSynced(stored, rows.get(key)), entries: entriesOf.get(key) ?? [] };
    });
  }

  #toSynced({ key, ...stored }: StoredSynced, row: Payload | undefined): Synced {
    if (stored.payload === undefined && row) this.#inRow.add(key);
    const { payload = row } = stored;
    if (payload !== undefined) return { ...stored, payload };
    // Somebody removed the row behind our back: nothing is known but the clock.
    return { ...UNKNOWN, clock: stored.clock };
  }

  async outbox(): Promise<Entry[]> {
    return await this.#outbox.all();
  }

  async markSent(ops: readonly Op[]): Promise<void> {
    const ids = new Set(ops.map(({ stamp }) => stamp.opId));
    for (const entry of await this.#outbox.all()) {
      const { opId } = entry.op.stamp;
      if (!entry.sent && ids.has(opId)) this.#outbox.put(opId, { ...entry, sent: true });
    }
    // They are written once more when they are answered, and when they leave: better together.
    this.#outbox.join();
    await results(this.#outbox.write());
  }

  async counts(): Promise<{ pending: number; blocked: number }> {
    const [pending, blocked] = await this.#outbox.counts();
    return { pending: pending!, blocked: blocked! };
  }

  async save(changes: readonly Changed[]): Promise<void> {
    const shown: Shown[] = [];
    for (const { was, synced, entries = was.entries } of changes) {
      const { key } = was;
      const { tableName, pk } = partsOf(key);
      const now = synced === undefined ? was.synced : (synced ?? undefined);
      for (const [opId, by] of replacements(was.entries, entries)) this.#outbox.put(opId, by);
      const { payload } = see(now, entries);
      if (this.#core && !isEqual(payload, see(was.synced, was.entries).payload)) shown.push({ key, payload });
      const isRow = this.#tables.has(tableName) && payload !== null && payload === now?.payload
        && this.#toRow(tableName, pk, payload) === payload;
      if (synced === null) this.#synced.put(key);
      else if (now && (synced || (this.#inRow.has(key) && !isRow))) {
        const { payload: kept, ...rest } = now;
        this.#synced.put(key, isRow ? { key, ...rest } : { key, ...rest, payload: kept });
      }
    }
    const requests = [...this.#synced.write(), ...this.#outbox.write()];
    if (this.#core) await all([results(requests), this.#write(shown)]);
    // A capture does not wait: one that fails aborts its transaction, which Dexie would prevent.
    else for (const request of requests) request.onerror = (event) => event.stopPropagation();
  }

  async show(keys: readonly Key[]): Promise<void> {
    const known = await this.known(keys);
    await this.#write(known.map(({ key, synced, entries }) => ({ key, payload: see(synced, entries).payload })));
  }

  /** Writes the app's rows. */
  async #write(shown: readonly Shown[]): Promise<void> {
    const trans = this.#trans;
    const byTable = groupBy(shown, ({ key }) => partsOf(key).tableName);
    const responses = await all([...byTable].filter(([name]) => this.#tables.has(name)).flatMap(([name, some]) => {
      const table = this.#core!.table(name);
      const keys: string[] = [];
      const gone: string[] = [];
      const values: Payload[] = [];
      for (const { key, payload } of some) {
        const { pk } = partsOf(key);
        (payload ? keys : gone).push(pk);
        if (payload) values.push(this.#toRow(name, pk, payload));
      }
      return [
        table.mutate({ type: 'delete', trans, keys: gone }),
        table.mutate({ type: 'put', trans, values, ...(table.schema.primaryKey.outbound && { keys }) }),
      ];
    }));
    const failure = responses.flatMap(({ failures }) => Object.values(failures))[0];
    if (failure) throw failure;
  }

  /** The row that shows a record: the payload itself if it can be. */
  #toRow(tableName: string, pk: string, payload: Payload): Payload {
    const { fields } = this.#tables.get(tableName)!;
    const { keyPath } = this.#store(tableName);
    let row = payload;
    if (fields && Object.keys(payload).some((name) => !fields.includes(name))) {
      row = pick(payload, (name) => fields.includes(name));
    }
    if (typeof keyPath !== 'string' || Dexie.getByKeyPath(row, keyPath) === pk) return row;
    const keyed = structuredClone(row);
    Dexie.setByKeyPath(keyed, keyPath, pk);
    return keyed;
  }

  async syncedKeys(): Promise<Key[]> {
    return await this.#synced.keys();
  }

  async stage(page: number, items: SnapshotItem[]): Promise<void> {
    await done(this.#store('_sync_staged').put(items, page));
  }

  async staged(page: number): Promise<SnapshotItem[]> {
    return await done(this.#store('_sync_staged').get(page)) ?? [];
  }

  async unstage(): Promise<void> {
    await done(this.#store('_sync_staged').clear());
  }

  async conflicts(): Promise<Conflict[]> {
    return await done(this.#store('_sync_conflict').getAll());
  }

  async putConflict(conflict: Conflict): Promise<void> {
    await done(this.#store('_sync_conflict').put(conflict));
  }

  async removeConflict(id: string): Promise<void> {
    await done(this.#store('_sync_conflict').delete(id));
  }

  async runs(): Promise<Run[]> {
    return await done(this.#store('_sync_run').getAll());
  }

  async log(run: Run): Promise<void> {
    const store = this.#store('_sync_run');
    const number = await done(store.add(run)) as number;
    await done(store.delete(IDBKeyRange.upperBound(number - RUNS_KEPT)));
  }

  async rows(tableName: string, after: string | null, limit: number): Promise<Row[]> {
    const store = this.#store(tableName);
    const range = IDBKeyRange.bound(after ?? '', [], after !== null, true);
    const [pks, values] = await all([done(store.getAllKeys(range, limit)), done(store.getAll(range, limit))]);
    return pks.map((pk, i) => ({ pk: pk as string, value: values[i] }));
  }

  async clear(tables: readonly string[]): Promise<void> {
    await all(OWN.map((name) => done(this.#store(name).clear())));
    for (const name of tables) {
      const range = { type: 3, lower: undefined, upper: undefined };
      await this.#core!.table(name).mutate({ type: 'deleteRange', trans: this.#trans, range });
    }
  }
}
