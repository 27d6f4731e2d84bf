import Dexie, { type DBCore, type DBCoreGetRequest, type DBCoreMutateRequest, type DBCoreMutateResponse, type DBCorePutRequest, type DBCoreTable, type DBCoreTransaction } from 'dexie';
import { SyncError } from '../error.ts';
import { groupBy } from '../rules/group.ts';
import { isEqual, toPayload } from '../rules/json.ts';
import { type Entry, type Synced, see } from '../rules/view.ts';
import type { Op, Payload, SnapshotItem } from '../wire.ts';
import { replacements } from './replacements.ts';
import { type Changed, type Conflict, type Key, type Known, type Part, RUNS_KEPT, type Row, type Run, type State, type Store, type Tx, keyOf, partsOf } from './store.ts';

/** The stores beside the app's, in the same database, so that one transaction changes both. */
const STORES: { [name in OwnStore]: string } = {
  _sync_state: '',
  _sync_synced: 'key',
  _sync_outbox: '++seq, *keys, *blocked',
  _sync_staged: '',
  _sync_conflict: 'id',
  _sync_run: '++',
};
type OwnStore = `_sync_${Part}`;
const OWN = Object.keys(STORES) as OwnStore[];

/** What is kept of a synced record; without a payload, the app's row is it. */
type StoredSynced = Omit<Synced, 'payload'> & { key: Key; payload?: Payload | null };

/** Ops that were made together, at most one of a record: one write for many. */
interface Chunk {
  seq?: number;
  /** Of the records that they belong to. */
  keys: Key[];
  /** Of those whose op was refused for now. */
  blocked: Key[];
  entries: Entry[];
}
const CHUNK_SIZE = 100;

/** Up to so many keys are looked up one by one. */
const FEW = 30;

/** What the store does with a table of the app. */
export interface ShownTable {
  /** The fields that this version of the app knows; others are kept, but not shown. */
  fields?: readonly string[] | undefined;
}

type ShownTables = ReadonlyMap<string, ShownTable>;

export interface Capture {
  /** Makes ops of what the app has written, in its transaction. */
  capture(tx: Tx, state: State | undefined, known: Known[], values: Map<Key, Payload | null>): Promise<void>;
  /** That transaction is complete. */
  captured(): void;
  /** Another tab holds an older version of the database open. */
  blocked(): void;
}

/** A Dexie database as a store. The app's tables show what the user sees, and what the app writes
 * into them is captured in the transaction that writes it. */
export class DexieStore implements Store {
  readonly name: string;
  readonly #db: Dexie;
  readonly #tables: ShownTables;
  /** The transactions that the app has written in, and the last write that is under way in each. */
  readonly #writing = new WeakMap<IDBTransaction, Promise<unknown> | null>();
  #core: DBCore | undefined;

  constructor(db: Dexie, tables: ShownTables, capture: Capture) {
    checkDatabase(db, tables);
    this.name = db.name;
    this.#db = db;
    this.#tables = tables;
    // In the lowest version: Dexie drops stores that a version on the way does not have.
    db.version(versionsOf(db)[0]!._cfg.version).stores(STORES);
    db.on('blocked', () => capture.blocked());
    db.use({
      stack: 'dbcore',
      name: 'sync_ext',
      // Below hooks, which may change what is written.
      level: 1,
      create: (core) => {
        this.#core = core;
        return {
          ...core,
          transaction: (names, mode, options) => {
            const isCaptured = mode === 'readwrite' && names.some((name) => tables.has(name));
            return core.transaction(isCaptured ? [...new Set([...names, ...OWN])] : names, mode, options);
          },
          table: (name) => {
            const table = core.table(name);
            if (!tables.has(name)) return table;
            const wrapped: DBCoreTable = { ...table, mutate: (request) => this.#mutate(table, request, capture) };
            for (const name of ['get', 'getMany', 'query', 'openCursor', 'count'] as const) {
              const read = table[name] as (request: DBCoreGetRequest) => Promise<never>;
              wrapped[name] = (request: { trans: DBCoreTransaction }) => this.#after(request.trans, () => read(request as DBCoreGetRequest));
            }
            return wrapped;
          },
        };
      },
    });
  }

  async transaction<T>(body: (tx: Tx) => Promise<T>, parts?: readonly Part[]): Promise<T> {
    return await this.#run('rw!', body, parts);
  }

  async read<T>(body: (tx: Tx) => Promise<T>, parts?: readonly Part[]): Promise<T> {
    return await this.#run('r!', body, parts);
  }

  async #run<T>(mode: 'rw!' | 'r!', body: (tx: Tx) => Promise<T>, parts?: readonly Part[]): Promise<T> {
    const names = parts?.map((part) => `_sync_${part}`) ?? [...this.#tables.keys(), ...OWN];
    return await this.#db.transaction(mode, names, async (transaction) => (
      await body(new DexieTx(transaction.idbtrans as IDBTransaction, this.#tables, this.#core))
    ));
  }

  /** In a transaction one thing follows the other, also if nobody waits: a capture reads what the
   * one before has saved, and the app what it has written. */
  #after<T>(trans: DBCoreTransaction, run: () => Promise<T>): Promise<T> {
    const before = this.#writing.get(trans as IDBTransaction);
    return before ? before.then(run, run) : run();
  }

  #mutate(table: DBCoreTable, request: DBCoreMutateRequest, capture: Capture): Promise<DBCoreMutateResponse> {
    const trans = request.trans as IDBTransaction;
    if (!this.#writing.has(trans)) trans.addEventListener('complete', () => capture.captured());
    const write = this.#after(trans, () => this.#capture(table, request, capture));
    const end = () => {
      if (this.#writing.get(trans) === write) this.#writing.set(trans, null);
    };
    this.#writing.set(trans, write);
    write.then(end, end);
    return write;
  }

  // Chains of Dexie's promises instead of await: what Dexie knows of the app's transaction would
  // be lost after an await in it.
  #capture(table: DBCoreTable, request: DBCoreMutateRequest, capture: Capture): Promise<DBCoreMutateResponse> {
    const trans = request.trans as IDBTransaction;
    const tx = new DexieTx(trans, this.#tables, undefined);
    // A row of another key may go, it is of no record.
    const isDelete = request.type === 'delete' || request.type === 'deleteRange';
    const pkOf = (pk: unknown) => (isDelete && typeof pk !== 'string' ? '' : checkPk(table.name, pk));
    const keysOf = (pks: unknown[]) => pks.map((pk) => keyOf(table.name, pkOf(pk)));
    const write = (keys: Key[], payloads: Payload[] | null): Promise<DBCoreMutateResponse> => {
      const record = (response: DBCoreMutateResponse, state: State | undefined, known: Known[]) => {
        const values = new Map<Key, Payload | null>();
        keys.forEach((key, i) => {
          if (!response.failures[i]) values.set(key, payloads && payloads[i]!);
        });
        const changed = known.filter(({ key }) => values.has(key));
        for (const was of changed) {
          const payload = values.get(was.key);
          if (payload) values.set(was.key, fromRow(table, was, tx.appRows.get(was.key), payload));
        }
        return Dexie.Promise.resolve(capture.capture(tx, state, changed, values)).then(() => response);
      };
      const unique = [...new Set(keys)];
      if (keys.length === 0 || keys.length > FEW) {
        return all([tx.state(), tx.known(unique)]).then(([state, known]) => (
          table.mutate(request).then((response) => record(response, state, known))
        ));
      }
      // The requests of a few reads are made before that of the write, so they read what was
      // there before it, are done before it, and nobody waits for them.
      const { known } = tx.ask(unique);
      const state = tx.askState();
      return table.mutate(request).then((response) => record(response, state.result, known()));
    };
    if (request.type === 'deleteRange') {
      const { lower, upper, lowerOpen, upperOpen } = request.range;
      const range = rangeOf(lower, upper, lowerOpen, upperOpen);
      return done(trans.objectStore(table.name).getAllKeys(range)).then((pks) => write(keysOf(pks), null));
    }
    try {
      const { extractKey } = table.schema.primaryKey;
      const keys = keysOf(request.keys ?? (request as DBCorePutRequest).values.map((value) => extractKey!(value)));
      if (request.type === 'delete') return write(keys, null);
      const payloads = request.values.map((value, i) => checkRow(keys[i]!, value));
      // The row is the payload, to which members that are undefined do not belong.
      request = { ...request, values: payloads };
      return write(keys, payloads);
    } catch (error) {
      return Dexie.Promise.reject(error);
    }
  }
}

const ANY_RANGE = 3;

function versionsOf(db: Dexie): { _cfg: { version: number } }[] {
  return (db as unknown as { _versions: { _cfg: { version: number } }[] })._versions;
}

function checkDatabase(db: Dexie, tables: ShownTables): void {
  if (db.isOpen()) throw new SyncError('TOO_LATE', 'the database is open: call this before its first use');
  if (versionsOf(db).length === 0) throw new SyncError('NO_VERSION', 'declare the tables first, by db.version().stores()');
  for (const name of tables.keys()) {
    const schema = db.tables.find((table) => table.name === name)?.schema;
    if (!schema) throw new SyncError('NO_TABLE', `the database has no table ${name}`);
    if (schema.primKey.auto || schema.primKey.compound) {
      throw new SyncError('INVALID_KEY', `the key of the table ${name} is not text that the app makes, like a UUID`);
    }
    // Records of others could not be shown.
    const unique = schema.indexes.find((index) => index.unique);
    if (unique) throw new SyncError('UNIQUE_INDEX', `the index ${unique.name} of the table ${name} is unique`);
  }
}

function checkPk(table: string, pk: unknown): string {
  const isValid = typeof pk === 'string' && pk !== '' && pk.isWellFormed() && !pk.includes('\0')
    && (pk.length <= 341 || new TextEncoder().encode(pk).length <= 1024);
  if (!isValid) throw new SyncError('INVALID_KEY', `the key of a record of ${table} is not text of 1 to 1024 bytes`);
  return pk;
}

function checkRow(key: Key, row: unknown): Payload {
  try {
    return toPayload(row);
  } catch (cause) {
    const { tableName, pk } = partsOf(key);
    const message = `the record ${pk} of ${tableName} cannot be synced: ${(cause as Error).message}`;
    throw new SyncError('INVALID_RECORD', message, { cause });
  }
}

/** The payload that a row means: with what the record has and the row before did not show. */
function fromRow(table: DBCoreTable, was: Known, before: Payload | undefined, row: Payload): Payload {
  const { payload } = see(was.synced, was.entries);
  if (!payload) return row;
  const hidden = Object.entries(payload).filter(([name]) => before && !Object.hasOwn(before, name));
  const whole = { ...Object.fromEntries(hidden), ...row };
  const { keyPath } = table.schema.primaryKey;
  if (typeof keyPath === 'string' && payload[keyPath] !== row[keyPath]) {
    // The key of a row is text, that of its record may be a number, or left out.
    if (Object.hasOwn(payload, keyPath)) whole[keyPath] = payload[keyPath]!;
    else delete whole[keyPath];
  }
  return whole;
}

/** As Dexie's promise, which keeps a transaction open. */
function all<T extends readonly unknown[]>(promises: readonly [...T]): Promise<{ -readonly [I in keyof T]: Awaited<T[I]> }> {
  return Dexie.Promise.all([...promises]) as unknown as Promise<{ -readonly [I in keyof T]: Awaited<T[I]> }>;
}

function done<T>(request: IDBRequest<T>): Promise<T> {
  return new Dexie.Promise<T>((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** When the last request is done, so are those before it. */
async function lastOf(requests: IDBRequest[]): Promise<void> {
  if (requests.length > 0) await done(requests.at(-1)!);
}

function rangeOf(lower: unknown, upper: unknown, lowerOpen = false, upperOpen = false): IDBKeyRange {
  if (upper === undefined) return IDBKeyRange.lowerBound(lower, lowerOpen);
  if (lower === undefined) return IDBKeyRange.upperBound(upper, upperOpen);
  return IDBKeyRange.bound(lower, upper, lowerOpen, upperOpen);
}

/** A transaction of IndexedDB. The stores beside the app's are used directly, the app's through
 * Dexie, so that its live queries notice. */
class DexieTx implements Tx {
  readonly #trans: IDBTransaction;
  readonly #tables: ShownTables;
  /** Without it the app writes its rows itself. */
  readonly #core: DBCore | undefined;
  /** Those that were read, by seq. */
  readonly #chunks = new Map<number, Chunk>();
  /** Where each op was read. */
  readonly #places = new Map<string, Chunk>();
  /** Records whose payload is the app's row. */
  readonly #inRow = new Set<Key>();
  /** The app's rows, of the records that were read last. */
  appRows = new Map<Key, Payload>();

  constructor(trans: IDBTransaction, tables: ShownTables, core: DBCore | undefined) {
    this.#trans = trans;
    this.#tables = tables;
    this.#core = core;
  }

  #store(name: OwnStore): IDBObjectStore {
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
    const rowsOf = async ([name, keys]: [string, Key[]]): Promise<[Key, Payload][]> => {
      const rows = await this.#readSome<Payload>(name, keys.map((key) => partsOf(key).pk));
      return [...rows].map(([pk, row]) => [keyOf(name, pk), row]);
    };
    const byTable = groupBy(keys, (key) => partsOf(key).tableName);
    const [synced, chunks, ...rows] = await all([
      this.#readSome<StoredSynced>('_sync_synced', keys),
      done<Chunk[]>(this.#store('_sync_outbox').getAll()),
      ...[...byTable].filter(([name]) => this.#tables.has(name)).map(rowsOf),
    ] as const);
    return this.#gather(keys, synced, chunks, new Map(rows.flat()));
  }

  /** Asks for a few records. They are known once the last request is done. */
  ask(keys: readonly Key[]): { last: IDBRequest; known: () => Known[] } {
    const asked = keys.map((key) => {
      const { tableName, pk } = partsOf(key);
      return {
        key,
        row: this.#tables.has(tableName) ? this.#trans.objectStore(tableName).get(pk) as IDBRequest<Payload> : undefined,
        synced: this.#store('_sync_synced').get(key) as IDBRequest<StoredSynced | undefined>,
        chunks: this.#store('_sync_outbox').index('keys').getAll(key) as IDBRequest<Chunk[]>,
      };
    });
    const known = () => this.#gather(
      keys,
      new Map(asked.flatMap(({ key, synced: { result } }) => (result ? [[key, result]] : []))),
      asked.flatMap(({ chunks }) => chunks.result),
      new Map(asked.flatMap(({ key, row }) => (row?.result ? [[key, row.result]] : []))),
    );
    return { last: asked.at(-1)!.chunks, known };
  }

  #gather(keys: readonly Key[], synced: Map<Key, StoredSynced>, chunks: Chunk[], rows: Map<Key, Payload>): Known[] {
    this.appRows = rows;
    const found = this.#meet(chunks).flatMap((chunk) => chunk.entries);
    const entries = groupBy(found, ({ op }) => keyOf(op.tableName, op.pk));
    return keys.map((key) => {
      const stored = synced.get(key);
      return { key, synced: stored && this.#toSynced(stored, rows.get(key)), entries: entries.get(key) ?? [] };
    });
  }

  #toSynced({ key, ...stored }: StoredSynced, row: Payload | undefined): Synced {
    const { payload } = stored;
    if (payload !== undefined) return { ...stored, payload };
    if (row) {
      this.#inRow.add(key);
      return { ...stored, payload: row };
    }
    // Somebody removed the row behind our back: nothing is known but the clock.
    return { version: 0, register: null, newest: null, payload: null, clock: stored.clock };
  }

  /** The values of these keys that are there, and perhaps of others. Many keys are mostly new,
   * and then between the lowest and the highest there is little to read. */
  async #readSome<T>(name: string, keys: readonly string[]): Promise<Map<string, T>> {
    const store = this.#trans.objectStore(name);
    const limit = 2 * keys.length;
    const sorted = keys.toSorted();
    const range = IDBKeyRange.bound(sorted[0]!, sorted.at(-1)!);
    const [found, values] = await all([done(store.getAllKeys(range, limit)), done<T[]>(store.getAll(range, limit))]);
    if (found.length < limit) return new Map(values.map((value, i) => [found[i] as string, value]));
    const some = await all(keys.map((key) => done<T | undefined>(store.get(key))));
    return new Map(some.flatMap((value, i) => (value ? [[keys[i]!, value]] : [])));
  }

  /** Each chunk once and in order, as this transaction has it already. */
  #meet(chunks: Chunk[]): Chunk[] {
    const met = new Map<number, Chunk>();
    for (const read of chunks) {
      const chunk = this.#chunks.get(read.seq!) ?? read;
      this.#chunks.set(chunk.seq!, chunk);
      if (chunk === read) for (const { op } of chunk.entries) this.#places.set(op.stamp.opId, chunk);
      met.set(chunk.seq!, chunk);
    }
    return [...met.values()].sort((a, b) => a.seq! - b.seq!);
  }

  async outbox(): Promise<Entry[]> {
    const chunks: Chunk[] = await done(this.#store('_sync_outbox').getAll());
    return this.#meet(chunks).flatMap(({ entries }) => entries);
  }

  /** After the whole outbox was read. */
  async markSent(ops: readonly Op[]): Promise<void> {
    const touched = new Set<Chunk>();
    for (const { stamp: { opId } } of ops) {
      const chunk = this.#places.get(opId)!;
      const entry = chunk.entries.find(({ op }) => op.stamp.opId === opId)!;
      if (!entry.sent) touched.add(chunk);
      entry.sent = true;
    }
    // They are written once more when they are answered, and when they leave: better together.
    let last: Chunk | undefined;
    for (const chunk of this.#chunks.values()) {
      const fits = last && last.keys.length + chunk.keys.length <= CHUNK_SIZE
        && touched.has(chunk) && !chunk.keys.some((key) => last!.keys.includes(key));
      if (fits) {
        for (const { op } of chunk.entries) this.#places.set(op.stamp.opId, last!);
        last!.keys.push(...chunk.keys);
        last!.entries.push(...chunk.entries.splice(0));
      } else last = touched.has(chunk) ? chunk : undefined;
    }
    await this.#writeOutbox([], touched);
  }

  async counts(): Promise<{ pending: number; blocked: number }> {
    const store = this.#store('_sync_outbox');
    const [pending, blocked] = await all([done(store.index('keys').count()), done(store.index('blocked').count())]);
    return { pending, blocked };
  }

  async save(changes: readonly Changed[]): Promise<void> {
    const store = this.#store('_sync_synced');
    const rows = new Map<string, Map<string, Payload | null>>();
    const added: Entry[] = [];
    const touched = new Set<Chunk>();
    const requests: IDBRequest[] = [];
    for (const { was, synced, entries } of changes) {
      const { key } = was;
      const { tableName, pk } = partsOf(key);
      const now = synced === undefined ? was.synced : (synced ?? undefined);
      if (entries) this.#replace(was.entries, entries, added, touched);
      const { payload } = see(now, entries ?? was.entries);
      const isShown = this.#tables.has(tableName);
      if (isShown && this.#core && !isEqual(payload, see(was.synced, was.entries).payload)) {
        if (!rows.has(tableName)) rows.set(tableName, new Map());
        rows.get(tableName)!.set(pk, payload);
      }
      const isRow = isShown && payload !== null && payload === now?.payload
        && this.#toRow(tableName, pk, payload) === payload;
      if (synced === null) requests.push(store.delete(key));
      else if (now && (synced || (this.#inRow.has(key) && !isRow))) {
        const { payload: kept, ...rest } = now;
        requests.push(store.put(isRow ? { key, ...rest } : { key, ...rest, payload: kept }));
      }
    }
    await all([
      lastOf(requests),
      this.#writeOutbox(added, touched),
      ...[...rows].map(([tableName, values]) => this.#write(tableName, values)),
    ]);
  }

  #replace(old: readonly Entry[], entries: readonly Entry[], added: Entry[], touched: Set<Chunk>): void {
    const change = replacements(old, entries);
    for (const [entry, by] of change.replaced) {
      const { opId } = entry.op.stamp;
      const chunk = this.#places.get(opId)!;
      const at = chunk.entries.findIndex(({ op }) => op.stamp.opId === opId);
      chunk.entries.splice(at, 1, ...(by ? [by] : []));
      this.#places.delete(opId);
      if (by) this.#places.set(by.op.stamp.opId, chunk);
      touched.add(chunk);
    }
    added.push(...change.added);
  }

  async #writeOutbox(added: Entry[], touched: Set<Chunk>): Promise<void> {
    const store = this.#store('_sync_outbox');
    const requests: IDBRequest[] = [];
    const keysOf = (entries: Entry[]) => entries.map(({ op }) => keyOf(op.tableName, op.pk));
    const chunkOf = (entries: Entry[]): Chunk => (
      { keys: keysOf(entries), blocked: keysOf(entries.filter(({ retry }) => retry !== undefined)), entries }
    );
    const emptied: number[] = [];
    for (const chunk of touched) {
      Object.assign(chunk, chunkOf(chunk.entries));
      if (chunk.entries.length > 0) requests.push(store.put(chunk));
      else emptied.push(chunk.seq!);
    }
    for (let i = 0; i < emptied.length;) {
      const first = emptied[i++]!;
      while (emptied[i] === emptied[i - 1]! + 1) i++;
      requests.push(store.delete(IDBKeyRange.bound(first, emptied[i - 1]!)));
    }
    for (let i = 0; i < added.length; i += CHUNK_SIZE) {
      requests.push(store.add(chunkOf(added.slice(i, i + CHUNK_SIZE))));
    }
    await lastOf(requests);
  }

  async show(keys: readonly Key[]): Promise<void> {
    const known = await this.known(keys);
    for (const [tableName, some] of groupBy(known, ({ key }) => partsOf(key).tableName)) {
      if (!this.#tables.has(tableName)) continue;
      const values = some.map(({ key, synced, entries }) => [partsOf(key).pk, see(synced, entries).payload] as const);
      await this.#write(tableName, new Map(values));
    }
  }

  /** Writes the app's rows. */
  async #write(tableName: string, values: ReadonlyMap<string, Payload | null>): Promise<void> {
    const table = this.#core!.table(tableName);
    const trans = this.#trans;
    const puts = [...values].filter((value): value is [string, Payload] => value[1] !== null);
    const keys = [...values].filter(([, payload]) => payload === null).map(([pk]) => pk);
    const responses = await all([
      table.mutate({ type: 'delete', trans, keys }),
      table.mutate({
        type: 'put',
        trans,
        values: puts.map(([pk, payload]) => this.#toRow(tableName, pk, payload)),
        ...(table.schema.primaryKey.outbound && { keys: puts.map(([pk]) => pk) }),
      }),
    ]);
    const failure = responses.flatMap(({ failures }) => Object.values(failures))[0];
    if (failure) throw failure;
  }

  /** The row that shows a record: the payload itself if it can be. */
  #toRow(tableName: string, pk: string, payload: Payload): Payload {
    const { fields } = this.#tables.get(tableName)!;
    const { keyPath } = this.#trans.objectStore(tableName);
    let row = payload;
    if (fields && Object.keys(payload).some((name) => !fields.includes(name))) {
      row = Object.fromEntries(Object.entries(payload).filter(([name]) => fields.includes(name)));
    }
    if (typeof keyPath !== 'string' || Dexie.getByKeyPath(row, keyPath) === pk) return row;
    const keyed = structuredClone(row);
    Dexie.setByKeyPath(keyed, keyPath, pk);
    return keyed;
  }

  async syncedKeys(): Promise<Key[]> {
    return await done(this.#store('_sync_synced').getAllKeys()) as Key[];
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
    const store = this.#trans.objectStore(tableName);
    const range = IDBKeyRange.bound(after ?? '', [], after !== null, true);
    const [pks, values] = await all([done(store.getAllKeys(range, limit)), done(store.getAll(range, limit))]);
    return pks.map((pk, i) => ({ pk: pk as string, value: values[i] }));
  }

  async clear(tables: readonly string[]): Promise<void> {
    await all(OWN.map((name) => done(this.#store(name).clear())));
    for (const name of tables) {
      const range = { type: ANY_RANGE, lower: undefined, upper: undefined };
      await this.#core!.table(name).mutate({ type: 'deleteRange', trans: this.#trans, range });
    }
  }
}
