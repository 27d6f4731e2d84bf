import vm from 'node:vm';
import { IDBDatabase, IDBFactory, IDBKeyRange, IDBOpenDBRequest, IDBTransaction } from 'fake-indexeddb';
import { Channels } from './channels.ts';
import { Locks } from './locks.ts';
import { Random } from './random.ts';
import type { Time } from './time.ts';

/** What fake-indexeddb keeps inside, as far as it is used here. */
interface RawStore {
  records: { records: { getAllRecords(): Iterable<{ key: unknown; value: unknown }> } };
}
interface RawDatabase {
  rawObjectStores: Map<string, RawStore>;
  transactions: RawTransaction[];
}
interface RawTransaction extends EventTarget {
  db: object;
  mode: string;
  _scope: Set<string>;
  _state: string;
  _abort(error: string): void;
}
interface Connection extends EventTarget {
  _rawDatabase: RawDatabase;
  close(): void;
}

const owners = new WeakMap<object, Tab>();
const lib = IDBDatabase.prototype as unknown as { transaction(...args: unknown[]): RawTransaction };
const transactionOf = lib.transaction;
lib.transaction = function transaction(this: object, ...args) {
  const tab = owners.get(this);
  if (tab?.isDead) throw new DOMException('the tab is gone', 'InvalidStateError');
  const tx = transactionOf.apply(this, args);
  if (tab && tx.mode !== 'readonly') {
    tx.addEventListener('complete', () => tab.origin.committed?.(tx._scope));
  }
  return tx;
};
const requests = IDBTransaction.prototype as unknown as { _execRequestAsync(...args: unknown[]): unknown };
const requestOf = requests._execRequestAsync;
requests._execRequestAsync = function request(this: RawTransaction, ...args) {
  const made = requestOf.apply(this, args);
  owners.get(this.db)?.requested();
  return made;
};

/** A browser as far as a site sees it: its databases, and what its tabs share. */
export class Origin {
  readonly factory = new IDBFactory();
  readonly locks = new Locks();
  readonly channels = new Channels();
  /** A transaction that may have written is complete. */
  committed: ((stores: ReadonlySet<string>) => void) | undefined;

  /** What a store holds, by key: the values themselves, which nobody may change. */
  read<T>(database: string, store: string): Map<string, T> {
    const raw = (this.factory as unknown as { _databases: Map<string, RawDatabase> })._databases.get(database);
    const records = raw?.rawObjectStores.get(store)?.records.records.getAllRecords() ?? [];
    return new Map([...records].map(({ key, value }) => [String(key), value as T]));
  }

  /** The browser needs the space: everything is gone, and so are the tabs. */
  async evict(): Promise<void> {
    const names = [...(this.factory as unknown as { _databases: Map<string, unknown> })._databases.keys()];
    await Promise.all(names.map((name) => new Promise((resolve) => {
      this.factory.deleteDatabase(name).onsuccess = resolve;
    })));
  }
}

export interface TabOptions {
  origin: Origin;
  time: Time;
  seed: number;
  hasLocks: boolean;
  /** The clock of the device. */
  clock(): number;
  fetch(tab: Tab, url: string, init: RequestInit): Promise<Response>;
  /** It writes to the console that something is wrong. */
  complain(tab: Tab, text: unknown[]): void;
}

/** A page in a realm of its own. When it is killed nothing that it began goes on: its
 * transactions are aborted, its calls are never answered, its timers never fire. */
export class Tab {
  readonly origin: Origin;
  readonly #options: TabOptions;
  readonly #connections: Connection[] = [];
  readonly #window = new EventTarget();
  readonly #document = Object.assign(new EventTarget(), { visibilityState: 'visible' });
  readonly #context: vm.Context;
  isDead = false;
  onDeath: (() => void) | undefined;
  #requestsLeft = Infinity;

  constructor(options: TabOptions) {
    this.origin = options.origin;
    this.#options = options;
    this.#context = vm.createContext(this.#globals());
    vm.runInContext(CLOCKS, this.#context);
  }

  /** Runs the page's program. Returns what it leaves in `page`. */
  run<T>(program: vm.Script): T {
    program.runInContext(this.#context);
    return (this.#context as { page?: T }).page!;
  }

  /** Runs what the page has for an event. */
  enter(run: () => void): void {
    if (this.isDead) return;
    try {
      run();
    } catch (error) {
      this.#options.complain(this, [(error as Error).stack]);
    }
  }

  get isVisible(): boolean {
    return this.#document.visibilityState === 'visible';
  }

  show(isVisible: boolean): void {
    this.#document.visibilityState = isVisible ? 'visible' : 'hidden';
    this.#document.dispatchEvent(new Event('visibilitychange'));
  }

  online(): void {
    this.#window.dispatchEvent(new Event('online'));
  }

  /** It will be killed in the middle of that many requests to its database from now. */
  killAfter(count: number): void {
    this.#requestsLeft = count;
  }

  requested(): void {
    if (--this.#requestsLeft <= 0) this.kill();
  }

  kill(): void {
    if (this.isDead) return;
    this.isDead = true;
    const { origin, time } = this.#options;
    time.drop(this);
    origin.channels.release(this);
    for (const connection of this.#connections) this.#cut(connection);
    origin.locks.release(this);
    this.onDeath?.();
  }

  #cut(connection: Connection): void {
    for (const tx of [...connection._rawDatabase.transactions]) {
      if (tx.db === connection && tx._state !== 'finished') tx._abort('AbortError');
    }
    connection.close();
  }

  #open(name: string, version?: number): IDBOpenDBRequest {
    if (this.isDead) return new IDBOpenDBRequest();
    const request = this.origin.factory.open(name, version);
    const meet = () => {
      const connection = request.result as unknown as Connection;
      owners.set(connection, this);
      this.#connections.push(connection);
      if (this.isDead) this.#cut(connection);
    };
    request.addEventListener('upgradeneeded', meet);
    request.addEventListener('success', meet);
    return request;
  }

  #globals(): object {
    const { origin, time, seed, hasLocks, clock } = this.#options;
    const random = new Random(seed);
    const timer = (run: () => void, delay = 0) => (this.isDead ? 0 : time.set(this, delay, () => this.enter(run)));
    const repeat = (run: () => void, delay: number) => {
      const ids = { last: 0 };
      const next = () => {
        ids.last = timer(next, delay);
        run();
      };
      ids.last = timer(next, delay);
      return ids;
    };
    const clear = (id: number | { last: number } | undefined) => {
      if (id !== undefined) time.clear(typeof id === 'object' ? id.last : id);
    };
    const getRandomValues = <T extends Uint8Array | Uint32Array>(values: T) => {
      for (let i = 0; i < values.length; i++) values[i] = Math.floor(random.next() * 2 ** (8 * values.BYTES_PER_ELEMENT));
      return values;
    };
    const timeout = (delay: number) => {
      const controller = new AbortController();
      timer(() => controller.abort(new DOMException('timed out', 'TimeoutError')), delay);
      return controller.signal;
    };
    return {
      now: clock,
      random: () => random.next(),
      setTimeout: timer,
      clearTimeout: clear,
      setInterval: repeat,
      clearInterval: clear,
      crypto: { getRandomValues },
      performance: { now: () => time.now },
      AbortSignal: { any: (signals: AbortSignal[]) => AbortSignal.any(signals), timeout },
      AbortController,
      navigator: { userAgent: '', ...(hasLocks && { locks: origin.locks.of(this) }) },
      document: this.#document,
      addEventListener: this.#window.addEventListener.bind(this.#window),
      removeEventListener: this.#window.removeEventListener.bind(this.#window),
      dispatchEvent: this.#window.dispatchEvent.bind(this.#window),
      indexedDB: {
        open: (name: string, version?: number) => this.#open(name, version),
        cmp: (a: unknown, b: unknown) => origin.factory.cmp(a, b),
        databases: () => origin.factory.databases(),
      },
      IDBKeyRange,
      BroadcastChannel: origin.channels.of(this),
      fetch: (url: string, init: RequestInit) => this.#options.fetch(this, url, init),
      // Dexie warns of what a killed tab meets.
      console: { debug() {}, warn() {}, error: (...text: unknown[]) => this.#options.complain(this, text) },
      queueMicrotask,
      structuredClone,
      DOMException,
      Event,
      CustomEvent,
      EventTarget,
      Headers,
      TextEncoder,
      TextDecoder,
      URLSearchParams,
    };
  }
}

/** The clock and the chance of a realm are those of its device and its seed. */
const CLOCKS = `{
  const { now, random } = globalThis;
  globalThis.Date = class extends Date {
    constructor(...args) {
      if (args.length > 0) super(...args);
      else super(now());
    }
    static now() {
      return now();
    }
  };
  Math.random = random;
}`;
