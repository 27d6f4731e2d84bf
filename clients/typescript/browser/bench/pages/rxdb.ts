import { type RxCollection, createRxDatabase } from 'rxdb/plugins/core';
import { getRxStorageDexie } from 'rxdb/plugins/storage-dexie';
import { type Row, offer } from './contender.ts';

const schema = {
  version: 0,
  primaryKey: 'id',
  type: 'object',
  properties: {
    id: { type: 'string', maxLength: 100 },
    listId: { type: 'string', maxLength: 100 },
    title: { type: 'string' },
    done: { type: 'boolean' },
    at: { type: 'number' },
  },
  required: ['id', 'listId', 'title', 'done', 'at'],
  indexes: ['listId'],
} as const;

let todos: RxCollection<Row>;

offer({
  async open(name) {
    const db = await createRxDatabase({ name, storage: getRxStorageDexie() });
    todos = (await db.addCollections({ todos: { schema } })).todos as RxCollection<Row>;
  },
  put: (row) => todos.upsert(row),
  bulkPut: (rows) => todos.bulkUpsert(rows),
  count: () => todos.count().exec(),
});
