import Dexie, { type DBCore, type DBCoreGetRequest, type DBCoreMutateRequest, type DBCoreMutateResponse, type DBCorePutRequest, type DBCoreTable, type DBCoreTransaction } from 'dexie';
import { SyncError } from '../error.ts';
import { isName, pick, toPayload } from '../rules/json.ts';
import { see } from '../rules/view.ts';
import type { Payload } from '../wire.ts';
import { DexieTx, FEW, OWN, STORES, type ShownTables } from './dexie_tx.ts';
import { type Key, type Known, type Part, type State, type Store, type Tx, keyOf, partsOf } from './store.ts';

export type { ShownTable } from './dexie_tx.ts';

export interface Capture {
  /** Makes ops of what the app has written, in its transaction. */
  capture(tx: Tx, state: State | undefined, known: Known[], values: Map<Key, Payload | null>): Promise<void>;
  /** That transaction is complete. */
  captured(): void;
  /** Another tab holds an older version of the database open. */
  blocked(): void;
  /** The database was closed, perhaps because the browser has removed it. */
  closed(): void;
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
    db.on('close', () => capture.closed());
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
    // Dexie does not try that again by itself.
    if (this.#db.hasFailed()) await this.#db.open();
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
    const tx = new DexieTx(trans, this.#tables);
    // A row of another key may go, it is of no record.
    const isDelete = request.type === 'delete' || request.type === 'deleteRange';
    const keysOf = (pks: unknown[]) => pks.map((pk) => (
      keyOf(table.name, isDelete && typeof pk !== 'string' ? '' : checkPk(table.name, pk))
    ));
    const write = (keys: Key[], payloads?: Payload[]): Promise<DBCoreMutateResponse> => {
      if (keys.length === 0) return table.mutate(request);
      const state = tx.askState();
      const record = (response: DBCoreMutateResponse, known: Known[]) => {
        const written = keys.map((key, i) => [key, payloads ? payloads[i]! : null] as const);
        const values = new Map(written.filter((_, i) => !response.failures[i]));
        const changed = known.filter(({ key }) => values.has(key));
        for (const was of changed) {
          const payload = values.get(was.key);
          if (payload) values.set(was.key, fromRow(table, was, tx.appRows.get(was.key), payload));
        }
        return Dexie.Promise.resolve(capture.capture(tx, state.result, changed, values)).then(() => response);
      };
      const unique = [...new Set(keys)];
      if (keys.length > FEW) {
        return Dexie.Promise.resolve(tx.known(unique)).then((known) => (
          table.mutate(request).then((response) => record(response, known))
        ));
      }
      // The requests of a few reads are made before that of the write, so they read what was
      // there before it, are done before it, and nobody waits for them.
      const { known } = tx.ask(unique);
      return table.mutate(request).then((response) => record(response, known()));
    };
    const { primaryKey } = table.schema;
    if (request.type === 'deleteRange') {
      const query = { index: primaryKey, range: request.range };
      return table.query({ trans, values: false, query }).then(({ result }) => write(keysOf(result)));
    }
    try {
      const keys = keysOf(request.keys ?? (request as DBCorePutRequest).values.map((value) => primaryKey.extractKey!(value)));
      if (request.type === 'delete') return write(keys);
      const payloads = request.values.map((value, i) => checkRow(keys[i]!, value));
      // The row is the payload, to which members that are undefined do not belong.
      request = { ...request, values: payloads };
      return write(keys, payloads);
    } catch (error) {
      return Dexie.Promise.reject(error);
    }
  }
}

function versionsOf(db: Dexie): { _cfg: { version: number } }[] {
  return (db as unknown as { _versions: { _cfg: { version: number } }[] })._versions;
}

function checkDatabase(db: Dexie, tables: ShownTables): void {
  if (db.isOpen()) throw new SyncError('TOO_LATE', 'the database is open already');
  if (versionsOf(db).length === 0) throw new SyncError('NO_VERSION', 'declare the tables first');
  for (const name of tables.keys()) {
    const schema = db.tables.find((table) => table.name === name)?.schema;
    if (!schema) throw new SyncError('NO_TABLE', `the database has no table ${name}`);
    if (schema.primKey.auto || schema.primKey.compound) {
      throw new SyncError('INVALID_KEY', `the key of the table ${name} is not text of the app`);
    }
    // Records of others could not be shown.
    const unique = schema.indexes.find((index) => index.unique);
    if (unique) throw new SyncError('UNIQUE_INDEX', `the index ${unique.name} of the table ${name} is unique`);
  }
}

function checkPk(table: string, pk: unknown): string {
  const isValid = typeof pk === 'string' && pk.isWellFormed() && isName(pk, 1024);
  if (!isValid) throw new SyncError('INVALID_KEY', `a key of the table ${table} is not text of 1 to 1024 bytes`);
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
  const whole = { ...pick(payload, (name) => !!before && !Object.hasOwn(before, name)), ...row };
  const { keyPath } = table.schema.primaryKey;
  if (typeof keyPath === 'string' && payload[keyPath] !== row[keyPath]) {
    // The key of a row is text, that of its record may be a number, or left out.
    if (Object.hasOwn(payload, keyPath)) whole[keyPath] = payload[keyPath]!;
    else delete whole[keyPath];
  }
  return whole;
}
