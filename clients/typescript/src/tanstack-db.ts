import type { BaseCollectionConfig, CollectionConfig, InferSchemaOutput, PendingMutation, StandardSchema, SyncConfig } from '@tanstack/db';
import { Dexie, type ObservabilitySet, RangeSet, type Table } from 'dexie';
import { SyncError } from './error.ts';
import { groupBy } from './rules/group.ts';
import { isEqual } from './rules/json.ts';
import type { Sync } from './sync.ts';
import type { Json } from './wire.ts';

export { SyncError } from './error.ts';

type Schema = StandardSchema<any>;
type Own = 'getKey' | 'onInsert' | 'onUpdate' | 'onDelete' | 'syncMode' | 'utils';

export interface SyncExtCollectionConfig<T extends object, S extends Schema = never>
  extends Omit<BaseCollectionConfig<T, string, S, SyncExtUtils>, Own> {
  /** A table of the database that `syncTables` was given. */
  table: Table<T, string>;
  /** What `syncTables` has returned. */
  sync: Sync;
}

export interface SyncExtUtils {
  [name: string]: unknown;
  readonly sync: Sync;
  readonly table: Table<any, string>;
  /** Resolves when the collection has been given all that is stored now. */
  shown(): Promise<void>;
}

/** Options for `createCollection`: a collection that shows a synced table. What is written into it
 * is stored in the table, from where it is pushed, whether the server can be reached or not. */
export function syncExtCollectionOptions<S extends Schema>(
  config: SyncExtCollectionConfig<InferSchemaOutput<S>, S> & { schema: S },
): CollectionConfig<InferSchemaOutput<S>, string, S, SyncExtUtils> & { schema: S; utils: SyncExtUtils };
export function syncExtCollectionOptions<T extends object>(
  config: SyncExtCollectionConfig<T> & { schema?: never },
): CollectionConfig<T, string, never, SyncExtUtils> & { schema?: never; utils: SyncExtUtils };
export function syncExtCollectionOptions({ table, sync, ...config }: SyncExtCollectionConfig<any, any>): unknown {
  const { keyPath } = table.schema.primKey;
  if (!sync.tables.has(table.name)) throw new SyncError('NO_TABLE', `the table ${table.name} is not synced`);
  if (typeof keyPath !== 'string' || keyPath === '') {
    throw new SyncError('INVALID_KEY', `the rows of the table ${table.name} do not have their key in a field`);
  }
  const getKey = (row: object): string => Dexie.getByKeyPath(row, keyPath) as string;
  const mirrors = new Set<Mirror>();
  const utils: SyncExtUtils = {
    sync,
    table,
    shown: async () => void await Promise.all([...mirrors].map((mirror) => mirror.turn)),
  };
  return {
    ...config,
    getKey,
    utils,
    onInsert: writeMutations,
    onUpdate: writeMutations,
    onDelete: writeMutations,
    sync: {
      rowUpdateMode: 'full',
      sync: (collection) => {
        const mirror = new Mirror(table, getKey, collection);
        const hear = (parts: ObservabilitySet) => mirror.hear(parts);
        Dexie.on.storagemutated.subscribe(hear);
        mirrors.add(mirror);
        mirror.begin();
        return () => {
          Dexie.on.storagemutated.unsubscribe(hear);
          mirrors.delete(mirror);
          mirror.end();
        };
      },
    } satisfies SyncConfig<any, string>,
  };
}

/** Stores what a transaction has done to collections of synced tables, of one database, in one
 * transaction of that. Also as `mutationFn` of a transaction over several of them. */
export async function writeMutations({ transaction }: { transaction: { mutations: PendingMutation<any>[] } }): Promise<void> {
  const ours = transaction.mutations.filter(({ collection }) => isOurs(collection.utils));
  const byTable = groupBy(ours, ({ collection }) => (collection.utils as SyncExtUtils).table);
  const tables = [...byTable.keys()];
  if (tables.length === 0) return;
  const { db } = tables[0]!;
  if (tables.some((table) => table.db !== db)) throw new SyncError('OTHER_DATABASE', 'one transaction cannot write into two databases');
  // Not within a transaction that the app may be in: it would end before the rows are shown.
  await db.transaction('rw!', tables, async () => {
    for (const [table, mutations] of byTable) await writeInto(table, mutations);
  });
  await Promise.all(ours.map(({ collection }) => (collection.utils as SyncExtUtils).shown()));
}

function isOurs(utils: Partial<SyncExtUtils>): boolean {
  return utils.table !== undefined && utils.shown !== undefined && utils.sync !== undefined;
}

async function writeInto(table: Table<any, string>, mutations: PendingMutation<any>[]): Promise<void> {
  const of = (type: string) => mutations.filter((mutation) => mutation.type === type);
  const [inserts, updates, deletes] = [of('insert'), of('update'), of('delete')];
  await table.bulkAdd(inserts.map(({ modified }) => modified));
  if (updates.length > 0) {
    const rows = await table.bulkGet(updates.map(({ key }) => key as string));
    await table.bulkPut(updates.map((mutation, i) => updated(rows[i], mutation)));
  }
  await table.bulkDelete(deletes.map(({ key }) => key as string));
}

/** The row with the fields that an update has changed. The others may be newer than those that its
 * author saw; if the row was deleted meanwhile, the edit brings it back. */
function updated(row: object | undefined, { original, modified }: PendingMutation<any>): object {
  if (!row) return modified;
  const isChanged = (name: string) => !isEqual(original[name] as Json, modified[name] as Json);
  const kept = Object.entries(row).filter(([name]) => Object.hasOwn(modified, name) || !Object.hasOwn(original, name));
  return Object.fromEntries([...kept, ...Object.entries(modified).filter(([name]) => isChanged(name))]);
}

/** Shows a collection what is in its table. */
class Mirror {
  /** Ends when all that is stored is shown. */
  turn: Promise<void> = Promise.resolve();
  readonly #table: Table<any, string>;
  readonly #getKey: (row: object) => string;
  readonly #collection: Parameters<SyncConfig<any, string>['sync']>[0];
  readonly #shown = new Map<string, object>();
  /** Keys of rows that may have changed; all of them. */
  #changed = new Set<string>();
  #isAll = false;
  #isOver = false;

  constructor(table: Table<any, string>, getKey: (row: object) => string, collection: Parameters<SyncConfig<any, string>['sync']>[0]) {
    this.#table = table;
    this.#getKey = getKey;
    this.#collection = collection;
  }

  begin(): void {
    this.#isAll = true;
    this.#show();
    const { markReady, markError } = this.#collection;
    this.turn.then(markReady, markError);
  }

  end(): void {
    this.#isOver = true;
  }

  /** A transaction, of whatever tab, is complete. */
  hear(parts: ObservabilitySet): void {
    const changed = parts[`idb://${this.#table.db.name}/${this.#table.name}/`];
    if (!changed && !parts.all) return;
    if (!changed) this.#isAll = true;
    else {
      for (const { from, to } of RangeSet(changed)) {
        if (from === to) this.#changed.add(from as string);
        else this.#isAll = true;
      }
    }
    this.#show();
  }

  /** Later changes that come before it begins are shown with it. */
  #show(): void {
    this.turn = this.turn.catch(() => {}).then(() => this.#read());
    this.turn.catch(() => {});
  }

  async #read(): Promise<void> {
    const [keys, isAll] = [[...this.#changed], this.#isAll];
    if (this.#isOver || (keys.length === 0 && !isAll)) return;
    this.#changed = new Set();
    this.#isAll = false;
    let rows: object[];
    try {
      rows = await Dexie.ignoreTransaction(() => (isAll ? this.#table.toArray() : this.#table.bulkGet(keys)));
    } catch (error) {
      this.#isAll = true;
      throw error;
    }
    const present = new Map(rows.filter((row) => row !== undefined).map((row) => [this.#getKey(row), row]));
    const gone = (isAll ? [...this.#shown.keys()] : keys).filter((key) => this.#shown.has(key) && !present.has(key));
    const isOther = ([key, row]: [string, object]) => !isEqual(this.#shown.get(key) as Json, row as Json);
    const others = [...present].filter(isOther);
    if (this.#isOver || (gone.length === 0 && others.length === 0)) return;
    const { begin, write, commit } = this.#collection;
    begin();
    for (const key of gone) {
      write({ type: 'delete', key });
      this.#shown.delete(key);
    }
    for (const [key, value] of others) {
      write({ type: this.#shown.has(key) ? 'update' : 'insert', value });
      this.#shown.set(key, value);
    }
    commit();
  }
}
