import Dexie from 'dexie';
import dexieCloud from 'dexie-cloud-addon';
import { offer } from './contender.ts';

let db: Dexie;

offer({
  async open(name) {
    db = new Dexie(name, { addons: [dexieCloud] });
    db.version(1).stores({ todos: 'id, listId' });
    // Nobody answers there: what it writes is captured, and waits.
    db.cloud.configure({ databaseUrl: `${location.origin}/nobody`, requireAuth: false, disableWebSocket: true });
    await db.open();
  },
  put: (row) => db.table('todos').put(row),
  bulkPut: (rows) => db.table('todos').bulkPut(rows),
  count: () => db.table('todos').count(),
});
