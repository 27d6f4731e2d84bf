import Dexie from 'dexie';
import { syncTables } from '../../../src/index.ts';
import { type Contender, offer } from './contender.ts';

/** Dexie alone, or synced: captured only, or pushed at the same time too. */
const query = new URLSearchParams(location.search);
const mode = query.get('mode') as 'alone' | 'captured' | 'live';

let db: Dexie;

const contender: Contender = {
  async open(name) {
    db = new Dexie(name);
    db.version(1).stores({ todos: 'id, listId' });
    if (mode !== 'alone') {
      const sync = syncTables(db, {
        url: '/sync',
        workspace: query.get('workspace')!,
        user: 'ann',
        headers: () => ({ 'x-user-id': 'ann' }),
        tables: { todos: { patches: true } },
      });
      if (mode === 'live') {
        await sync.start();
        await new Promise<void>((resolve) => sync.status.subscribe(({ phase }) => phase === 'live' && resolve()));
      }
    }
    await db.open();
  },
  put: (row) => db.table('todos').put(row),
  bulkPut: (rows) => db.table('todos').bulkPut(rows),
  count: () => db.table('todos').count(),
};

offer(contender);
