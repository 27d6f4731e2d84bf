import 'fake-indexeddb/auto';
import { type RxCollection, type RxConflictHandler, type RxDatabase, addRxPlugin, createRxDatabase } from 'rxdb';
import { RxDBDevModePlugin, disableWarnings } from 'rxdb/plugins/dev-mode';
import { getRxStorageDexie } from 'rxdb/plugins/storage-dexie';
import { wrappedValidateAjvStorage } from 'rxdb/plugins/validate-ajv';
import { type Refusal, type SyncExtOptions, type SyncExtReplication, type SyncField, replicateSyncExt, syncProperty } from '../../../src/rxdb.ts';
import { Line, newName } from './world.ts';

disableWarnings();
addRxPlugin(RxDBDevModePlugin);

export interface Todo {
  id: string;
  title: string;
  done?: boolean;
  sync?: SyncField;
}

export const schema = {
  version: 0,
  primaryKey: 'id',
  type: 'object',
  properties: {
    id: { type: 'string', maxLength: 100 },
    title: { type: 'string' },
    done: { type: 'boolean' },
    sync: syncProperty,
  },
  required: ['id', 'title'],
} as const;

export interface ClientOptions extends Partial<Omit<SyncExtOptions<Todo>, 'url'>> {
  url: string;
  workspace: string;
  conflictHandler?: RxConflictHandler<Todo>;
  /** The collection's name; by default also the table's. */
  name?: string;
  /** One of several of its database. */
  isTab?: boolean;
  /** Before the replication begins. */
  prepare?: (todos: RxCollection<Todo>) => Promise<unknown>;
}

const open: RxClient[] = [];

export async function closeClients(): Promise<void> {
  await Promise.all(open.splice(0).map((client) => client.close()));
}

/** An app on RxDB, with a storage that outlasts it. */
export class RxClient {
  readonly line: Line;
  readonly database: string;
  readonly db: RxDatabase<{ [name: string]: RxCollection<Todo> }>;
  readonly todos: RxCollection<Todo>;
  readonly replication: SyncExtReplication<Todo>;
  readonly refusals: Refusal<Todo & { _deleted: boolean }>[] = [];
  /** Codes of errors that the replication has told. */
  readonly errors: string[] = [];
  readonly #options: ClientOptions;

  private constructor(database: string, line: Line, db: RxClient['db'], todos: RxCollection<Todo>, options: ClientOptions) {
    this.database = database;
    this.line = line;
    this.db = db;
    this.todos = todos;
    this.#options = options;
    this.replication = replicateSyncExt({ collection: todos, fetch: line.fetch, retryTime: 20, ...options });
    this.replication.refused$.subscribe((refusal) => this.refusals.push(refusal));
    this.replication.error$.subscribe((error) => {
      const { errors } = error.parameters as { errors?: { code?: string }[] };
      this.errors.push(errors?.[0]?.code ?? error.message);
    });
  }

  static async open(options: ClientOptions, database = newName('db'), line = new Line()): Promise<RxClient> {
    const { conflictHandler, name = 'todos', isTab = false, prepare } = options;
    const storage = wrappedValidateAjvStorage({ storage: getRxStorageDexie() });
    const db = await createRxDatabase<{ [name: string]: RxCollection<Todo> }>({
      name: database, storage, multiInstance: isTab, ignoreDuplicate: isTab,
    });
    const { [name]: todos } = await db.addCollections({ [name]: { schema, ...(conflictHandler && { conflictHandler }) } });
    await prepare?.(todos!);
    const client = new RxClient(database, line, db, todos!, options);
    open.push(client);
    return client;
  }

  /** Another start of the app, on the same storage. */
  async restart(options: Partial<ClientOptions> = {}): Promise<RxClient> {
    await this.close();
    return await RxClient.open({ ...this.#options, ...options }, this.database, this.line);
  }

  async titles(): Promise<Record<string, string>> {
    const docs = await this.todos.find().exec();
    return Object.fromEntries(docs.map(({ id, title }) => [id, title]));
  }

  async edit(id: string, title: string): Promise<void> {
    await (await this.todos.findOne(id).exec(true)).incrementalPatch({ title });
  }

  async remove(id: string): Promise<void> {
    await (await this.todos.findOne(id).exec(true)).incrementalRemove();
  }

  /** All is pushed and pulled. */
  async settle(): Promise<void> {
    await this.replication.awaitInSync();
  }

  async close(): Promise<void> {
    if (!this.db.closed) await this.db.close();
  }
}
