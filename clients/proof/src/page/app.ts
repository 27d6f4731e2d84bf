/** The app, as it runs in a tab. */
import Dexie, { type Table } from 'dexie';
import { type Op, type Payload, type SyncOptions, syncTables } from '../../../typescript/src/index.ts';
import type { Edit, Resolution, Write } from '../history.ts';

import { DATABASE } from '../names.ts';

export type Row = Payload & { id: string };

export interface AppOptions {
  sync: SyncOptions;
  /** Of the database, in each version of it. */
  tables: string[];
  version: number;
}

export type App = ReturnType<typeof open>;

function open({ sync: options, tables, version }: AppOptions) {
  const db = new Dexie(DATABASE);
  for (let i = 1; i <= version; i++) {
    db.version(i).stores(Object.fromEntries(tables.map((name) => [name, 'id, a'])));
  }
  const sync = syncTables(db, options);
  return {
    sync,
    tables: [...sync.tables.keys()],
    edit: (edit: Edit, rowOf: RowOf) => perform(db, edit, rowOf),
    resolve: async (which: number, how: Resolution, value: Payload | null) => {
      const conflicts = await sync.conflicts();
      const conflict = conflicts[which % conflicts.length];
      if (!conflict) return;
      if (how === 'merge') await conflict.merge(value && { ...value, id: conflict.pk });
      else await conflict[how]();
    },
    pending: async (): Promise<Op[]> => await sync.pending(),
    close: () => {
      sync.stop();
      db.close();
    },
  };
}

/** The row that an edit writes. */
type RowOf = (write: Write) => Row;

async function perform(db: Dexie, edit: Edit, rowOf: RowOf): Promise<void> {
  if (edit.writes.length === 1 && !edit.isTransaction) {
    await write(db.table(edit.writes[0]!.table), edit.writes[0]!, rowOf);
    return;
  }
  const tables = [...new Set(edit.writes.map(({ table }) => table))];
  await db.transaction('rw', tables, async () => {
    for (const one of edit.writes) await write(db.table(one.table), one, rowOf);
    if (edit.isAborted) throw new Error('the app thinks better of it');
  });
}

async function write(table: Table<Row, string>, one: Write, rowOf: RowOf): Promise<void> {
  const row = rowOf(one);
  const { id: _, ...fields } = row;
  switch (one.kind) {
    case 'add':
      await table.add(row);
      return;
    case 'put':
      await table.put(row);
      return;
    case 'update':
      await table.update(row.id, fields);
      return;
    case 'modify':
      await table.where('id').aboveOrEqual(row.id).modify(fields);
      return;
    case 'strip':
      await table.where('id').equals(row.id).modify((old) => {
        delete old['b'];
      });
      return;
    case 'delete':
      await table.delete(row.id);
      return;
    case 'bulkPut':
      await table.bulkPut(many(row));
      return;
    case 'bulkAdd':
      // Those that are there already fail, the others stay.
      await table.bulkAdd(many(row)).catch(Dexie.BulkError, () => {});
      return;
    case 'bulkDelete':
      await table.bulkDelete(many(row).map(({ id }) => id));
      return;
    case 'clear':
      await table.clear();
      return;
    case 'range':
      await table.where('id').aboveOrEqual(row.id).delete();
      return;
  }
}

/** The row and some whose keys begin as its key does. */
function many(row: Row): Row[] {
  return ['', '1', '2'].map((end) => ({ ...row, id: row.id + end }));
}

(globalThis as { page?: unknown }).page = { open };
