import 'fake-indexeddb/auto';
import Dexie from 'dexie';
import type { EditRules } from '../../src/rules/edit.ts';
import { type ShownTable, DexieStore } from '../../src/store/dexie.ts';
import { type Key, keyOf } from '../../src/store/store.ts';
import type { Op, Payload } from '../../src/wire.ts';
import { TestDevice } from './device.ts';
import { FakeServer } from './server.ts';

let databases = 0;

export const newName = () => `app ${++databases}`;

export interface AppOptions {
  name?: string;
  /** Declares the versions of the database. */
  declare?: (db: Dexie) => void;
  tables?: { [name: string]: ShownTable };
  rules?: EditRules;
  server?: FakeServer;
}

/** An app with a Dexie database whose tables are synced. */
export class App {
  readonly db: Dexie;
  readonly store: DexieStore;
  readonly device: TestDevice;
  readonly server: FakeServer;
  readonly tables: string[];
  /** How many transactions with writes of the app are complete. */
  captured = 0;

  constructor({ name = newName(), declare, tables = { notes: {}, files: {} }, rules, server }: AppOptions = {}) {
    this.db = new Dexie(name);
    if (declare) declare(this.db);
    else this.db.version(1).stores({ notes: 'id, n', files: 'id' });
    this.tables = Object.keys(tables);
    this.server = server ?? new FakeServer();
    this.store = new DexieStore(this.db, new Map(Object.entries(tables)), {
      capture: async (tx, state, known, values: Map<Key, Payload | null>) => {
        const { device } = this.device;
        const present = state ?? await device.state(tx);
        if (!state) await tx.setState(present);
        await device.record(tx, present, known, values);
      },
      captured: () => {
        this.captured++;
      },
      blocked: () => {},
      closed: () => {},
    });
    const fields = Object.fromEntries(Object.entries(tables).map(([name, { fields }]) => [name, fields ?? null]));
    this.device = new TestDevice(this.server, this.store, { fields, ...(rules && { rulesOf: () => rules }) });
  }

  static async open(options?: AppOptions): Promise<App> {
    const app = new App(options);
    await app.device.device.open();
    return app;
  }

  get notes() {
    return this.db.table('notes');
  }

  get files() {
    return this.db.table('files');
  }

  /** The ops in the outbox, in short. */
  async ops(): Promise<[operation: Op['operation'], pk: string, payload: Payload | undefined][]> {
    return (await this.device.outbox()).map(({ operation, pk, payload }) => [operation, pk, payload]);
  }

  /** What is left in a store of the database. */
  async stored(name: string): Promise<unknown[]> {
    return await this.db.table(name).toArray();
  }

  async syncedPayload(pk: string, tableName = 'notes'): Promise<Payload | null | undefined> {
    const [known] = await this.store.read((tx) => tx.known([keyOf(tableName, pk)]));
    return known!.synced?.payload;
  }
}
