/** The page of the tests: an app with a database that is synced, and whatever a test makes it do
 * through `app`. */
import Dexie, { liveQuery, type Table } from 'dexie';
import { type Status, type Sync, type SyncOptions, syncTables } from '../../src/index.ts';

export interface Todo {
  id: string;
  title?: string;
  done?: boolean;
  [name: string]: unknown;
}

export interface Opened {
  db: Dexie;
  todos: Table<Todo, string>;
  sync: Sync;
  /** Each status that it has had. */
  statuses: Status[];
}

export interface App extends Opened {
  user: string;
  /** A store of its own, by the name of its database. */
  open(name: string, options?: Partial<SyncOptions> & { version?: number }): Opened;
  stores: { [name: string]: Opened };
  /** Begins to follow what the app shows. */
  watch(): void;
  /** Each state of it, and when it came. */
  seen: Todo[][];
  seenAt: number[];
  /** The browser has closed the database. */
  closed?: Promise<void>;
  /** Text that cannot be compressed. */
  noise(length: number): string;
}

declare global {
  var app: App;
}

const query = new URLSearchParams(location.search);
const user = query.get('user')!;
const workspace = query.get('workspace')!;
// The same for all stores of the page.
const headers = () => ({ 'x-user-id': user });
const stores: App['stores'] = {};

function open(name: string, { version = 1, ...options }: Parameters<App['open']>[1] = {}): Opened {
  const db = new Dexie(name);
  for (let i = 1; i <= version; i++) db.version(i).stores({ todos: i === 1 ? 'id' : 'id, done' });
  const sync = syncTables(db, {
    url: '/sync',
    workspace,
    user,
    headers,
    tables: { todos: { patches: true } },
    ...options,
  });
  const statuses: Status[] = [];
  sync.on('status', (status) => statuses.push(status));
  return stores[name] = { db, todos: db.table('todos'), sync, statuses };
}

const version = Number(query.get('version') ?? 1);
globalThis.app = {
  user,
  open,
  stores,
  watch: () => void liveQuery(() => app.todos.toArray()).subscribe((todos) => {
    app.seen.push(todos);
    app.seenAt.push(Date.now());
  }),
  seen: [],
  seenAt: [],
  noise: (length) => Array.from({ length: length / 10 }, () => Math.random().toString(36).slice(2, 12).padEnd(10)).join(''),
  ...open(workspace, { version }),
};
if (!query.has('manual')) void app.sync.start().catch(() => {});
