import 'fake-indexeddb/auto';
import { type Collection, createCollection } from '@tanstack/db';
import Dexie, { type Table } from 'dexie';
import { type Sync, type SyncOptions, syncTables } from '../../../src/index.ts';
import { type SyncExtUtils, syncExtCollectionOptions } from '../../../src/tanstack-db.ts';
import { Line, newName } from './world.ts';

export interface Todo {
  id: string;
  title: string;
  done?: boolean | null;
  listId?: string;
}

export interface List {
  id: string;
  title: string;
}

export type Database = Dexie & { todos: Table<Todo, string>; lists: Table<List, string> };

const open: TanstackClient[] = [];

export async function closeClients(): Promise<void> {
  await Promise.all(open.splice(0).map((client) => client.close()));
}

export function database(name: string): Database {
  const db = new Dexie(name) as Database;
  db.version(1).stores({ todos: 'id, listId', lists: 'id' });
  return db;
}

/** An app on TanStack DB, with a database that outlasts it. */
export class TanstackClient {
  readonly line: Line;
  readonly db: Database;
  readonly sync: Sync;
  readonly todos: Collection<Todo, string, SyncExtUtils>;
  readonly lists: Collection<List, string, SyncExtUtils>;
  readonly #options: Partial<SyncOptions> & { url: string; workspace: string };

  private constructor(name: string, line: Line, options: TanstackClient['options']) {
    this.line = line;
    this.#options = options;
    this.db = database(name);
    this.sync = syncTables(this.db, { tables: ['todos', 'lists'], fetch: line.fetch, ...options });
    this.todos = createCollection(syncExtCollectionOptions({ table: this.db.todos, sync: this.sync, startSync: true }));
    this.lists = createCollection(syncExtCollectionOptions({ table: this.db.lists, sync: this.sync, startSync: true }));
  }

  get options() {
    return this.#options;
  }

  static async open(options: TanstackClient['options'], name = newName('db'), line = new Line()): Promise<TanstackClient> {
    const client = new TanstackClient(name, line, options);
    await client.sync.start();
    await client.todos.preload();
    open.push(client);
    return client;
  }

  async restart(): Promise<TanstackClient> {
    await this.close();
    return await TanstackClient.open(this.#options, this.db.name, this.line);
  }

  titles(): Record<string, string> {
    return Object.fromEntries(this.todos.toArray.map(({ id, title }) => [id, title]));
  }

  async close(): Promise<void> {
    this.sync.stop();
    await this.todos.cleanup();
    await this.lists.cleanup();
    this.db.close();
  }
}
