import { Device, type DeviceEvents, type DeviceOptions } from '../../src/device.ts';
import { SyncError } from '../../src/error.ts';
import { see } from '../../src/rules/view.ts';
import { MemoryStore } from '../../src/store/memory.ts';
import { type Conflict, type Known, type State, type Store, type Tx, keyOf } from '../../src/store/store.ts';
import type { Op, Payload } from '../../src/wire.ts';
import type { FakeServer } from './server.ts';

export type Told = { [E in keyof DeviceEvents]: { event: E; detail: DeviceEvents[E] } }[keyof DeviceEvents];

export const never = new AbortController().signal;

export type TestOptions = Partial<DeviceOptions> & { tables?: string[] };

/** A device on a store, with what a test wants to know of it. */
export class TestDevice {
  readonly device: Device;
  readonly store: Store;
  readonly told: Told[] = [];

  constructor(server: FakeServer, store: Store = new MemoryStore(), { tables = ['notes', 'files'], ...options }: TestOptions = {}) {
    this.store = store;
    let now = 1_700_000_000_000;
    this.device = new Device(store, server, {
      workspace: 'w',
      user: null,
      filter: null,
      scopes: null,
      fields: Object.fromEntries(tables.map((name) => [name, null])),
      rulesOf: () => ({ patches: true, conflicts: 'merge' }),
      tell: (event, detail) => this.told.push({ event, detail } as Told),
      now: () => now++,
      pushLimit: 500,
      pageLimit: 1000,
      ...options,
    });
  }

  static async open(server: FakeServer, store?: Store, options?: TestOptions): Promise<TestDevice> {
    const device = new TestDevice(server, store, options);
    await device.device.open();
    return device;
  }

  /** What an app does: its write is captured in its transaction. */
  async write(tableName: string, pk: string, value: Payload | null): Promise<void> {
    await this.writeAll([[tableName, pk, value]]);
  }

  async writeAll(values: [tableName: string, pk: string, value: Payload | null][]): Promise<void> {
    const byKey = new Map(values.map(([tableName, pk, value]) => [keyOf(tableName, pk), value]));
    await this.store.transaction(async (tx) => {
      const state = await this.device.state(tx);
      await tx.setState(state);
      await this.device.record(tx, state, await tx.known([...byKey.keys()]), byKey);
    });
  }

  async push(): Promise<void> {
    await this.device.push(never);
  }

  async pull(): Promise<void> {
    await this.device.pull(never);
  }

  async sync(): Promise<void> {
    await this.push();
    await this.pull();
    await this.device.acknowledge(never);
  }

  /** Until what was answered has come back, and what waited was pushed. */
  async settle(): Promise<void> {
    for (let round = 0; round < 5; round++) {
      await this.sync();
      if ((await this.outbox()).length === 0) return;
    }
  }

  #read<T>(body: (tx: Tx) => Promise<T>): Promise<T> {
    return this.store.read(body);
  }

  async rows(tableName: string): Promise<{ [pk: string]: unknown }> {
    const rows = await this.#read((tx) => tx.rows(tableName, null, 10_000));
    return Object.fromEntries(rows.map(({ pk, value }) => [pk, value]));
  }

  async outbox(): Promise<Op[]> {
    return (await this.#read((tx) => tx.outbox())).map(({ op }) => op);
  }

  async known(tableName: string, pk: string): Promise<Known> {
    const [known] = await this.#read((tx) => tx.known([keyOf(tableName, pk)]));
    return known!;
  }

  async conflicts(): Promise<Conflict[]> {
    return await this.#read((tx) => tx.conflicts());
  }

  async state(): Promise<State> {
    return (await this.#read((tx) => tx.state()))!;
  }

  /** The rows as they should be, of all that the store has. */
  async seen(tableName: string): Promise<{ [pk: string]: Payload }> {
    return await this.#read(async (tx) => {
      const keys = new Set([...await tx.syncedKeys(), ...(await tx.outbox()).map(({ op }) => keyOf(op.tableName, op.pk))]);
      const known = await tx.known([...keys].filter((key) => key.startsWith(`${tableName}\0`)));
      return Object.fromEntries(known.flatMap(({ key, synced, entries }) => {
        const { payload } = see(synced, entries);
        return payload ? [[key.slice(tableName.length + 1), payload]] : [];
      }));
    });
  }

  events<E extends keyof DeviceEvents>(name: E): DeviceEvents[E][] {
    return this.told.filter(({ event }) => event === name).map(({ detail }) => detail as DeviceEvents[E]);
  }
}

/** The error of what must fail. */
export async function failure(promise: Promise<unknown>): Promise<SyncError> {
  const error = await promise.then(() => undefined, (error: unknown) => error);
  if (error instanceof SyncError) return error;
  throw error ?? new Error('it did not fail');
}
