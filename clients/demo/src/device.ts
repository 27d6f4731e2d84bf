import Dexie, { type Table } from 'dexie';
import { type Sync, syncTables } from 'sync-ext';
import { Network } from './network.ts';

export interface List {
  id: string;
  project: string;
  title: string;
  created_at: string;
}

export interface Todo {
  id: string;
  list_id: string;
  project: string;
  title: string;
  done: boolean;
  created_at: string;
}

class Database extends Dexie {
  declare readonly lists: Table<List, string>;
  declare readonly todos: Table<Todo, string>;

  constructor(name: string) {
    super(name);
    this.version(1).stores({ lists: 'id', todos: 'id, list_id' });
  }
}

/** Bob begins without the second one. */
export const PROJECTS = ['Home', 'Office'];

/** A user's device: a database of its own, kept in step with the workspace. */
export class Device {
  readonly user: string;
  readonly db: Database;
  readonly network: Network;
  readonly sync: Sync;

  constructor(user: string, run: string) {
    this.user = user;
    this.db = new Database(`todos-${user}-${run}`);
    this.network = new Network(this.db.name);
    this.sync = syncTables(this.db, {
      url: '/sync',
      workspace: 'home',
      user,
      headers: () => ({ 'x-user-id': user }),
      fetch: this.network.fetch,
      scopes: user === 'bob' ? ['Home'] : PROJECTS,
      tables: {
        lists: { patches: true },
        // Of two edits of the same field, the second one is not stored: its user decides.
        todos: { patches: true, conflicts: 'ask' },
      },
    });
    this.network.isOnline.subscribe(() => this.sync.retry());
  }

  /** Follows a project or no longer; offline, as soon as the server can be reached. */
  async follow(project: string, isFollowed: boolean): Promise<void> {
    const others = this.sync.scopes.wished!.filter((other) => other !== project);
    await this.sync.setScopes(isFollowed ? [...others, project] : others);
  }

  async addList(title: string, project: string): Promise<string> {
    return await this.db.lists.add({ id: crypto.randomUUID(), project, title, created_at: new Date().toISOString() });
  }

  async addTodo({ id: list_id, project }: List, title: string): Promise<void> {
    const created_at = new Date().toISOString();
    await this.db.todos.add({ id: crypto.randomUUID(), list_id, project, title, done: false, created_at });
  }
}

/** Databases of earlier runs, whose server is gone. */
export async function removeOthers(run: string): Promise<void> {
  const names = await Dexie.getDatabaseNames();
  const others = names.filter((name) => name.startsWith('todos-') && !name.endsWith(`-${run}`));
  await Promise.all(others.map((name) => Dexie.delete(name)));
}
