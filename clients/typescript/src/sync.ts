import { pauseAfter } from './backoff.ts';
import { Device, type DeviceEvents, type Scopes, isUnsettled } from './device.ts';
import { SyncError, remedyOf } from './error.ts';
import { type Follower, type Live, liveOf, sleep } from './live.ts';
import { Emitter, Observable } from './observable.ts';
import { isEqual } from './rules/json.ts';
import { type Entry, see } from './rules/view.ts';
import { Server, type ServerOptions } from './server.ts';
import { type Conflict, type Key, type Known, type Run, type State, type Store, type Tx, keyOf } from './store/store.ts';
import { type Message, Tabs } from './tabs.ts';
import type { Op, Payload } from './wire.ts';

export interface TableOptions {
  /** The server's table allows patches: edits of different fields by two users are merged. */
  patches?: boolean;
  /** `merge` (the default): the last edit wins, and who lost is told. `ask`: an edit is stored only
   * if nobody else has edited the same since, else its user decides. */
  conflicts?: 'merge' | 'ask';
  /** The fields that this version of the app knows; others are kept, but not shown. */
  fields?: string[];
}

export interface SyncOptions extends ServerOptions {
  workspace: string;
  /** The tables of the app that are synced, by name. */
  tables: string[] | { [name: string]: TableOptions };
  /** Who works here: a store never mixes what two users may see. */
  user?: string;
  /** The server's tables that are pulled; by default all, also those that the app does not know. */
  filter?: string[];
  /** The scopes that are followed from the first start on; by default all. Later `setScopes`
   * changes them. */
  scopes?: string[];
  /** Whether changes of others are told at once, by a stream; default true. */
  live?: boolean;
  /** Milliseconds between two pulls without a stream; default 30,000. */
  pollInterval?: number;
  /** So many pending ops are told by the event `queueFull`; default 10,000. */
  queueLimit?: number;
  /** The maximum number of ops a push (500) and of records a page (1,000). */
  pushLimit?: number;
  pageLimit?: number;
}

export interface Status {
  /** `stopped`: not started, or by `stop`. `starting`. `syncing`: calls are under way. `live`: a
   * stream tells what is new. `polling`: pulls do. `waiting`: a call failed, another follows.
   * `unauthorized`: the server wants other headers. `refused`: the server refuses this user or
   * workspace, or finds the client wrong: nothing more until `retry`. `storage`: the browser's
   * database fails. */
  phase: 'stopped' | 'starting' | 'syncing' | 'live' | 'polling' | 'waiting' | 'unauthorized' | 'refused' | 'storage';
  /** The server answered the last call. */
  online: boolean;
  /** This tab talks to the server; else another one does. */
  isLeader: boolean;
  /** Ops that the server does not hold for good yet. */
  pending: number;
  /** Of these, ops that the server refuses for now, like one whose parent row is missing there. */
  blocked: number;
  /** Conflicts that nobody has resolved; of these, edits that the server refused. */
  conflicts: number;
  failed: number;
  /** Milliseconds since 1970. */
  lastSynced: number | null;
  /** While the first records arrive, or all anew: how many have, and which share it is. */
  progress: { records: number; share: number | null } | null;
  /** The scopes that are followed, and those that are to be as soon as the server can be reached. */
  scopes: Scopes;
  error: { code: string; message: string } | null;
}

export interface SyncEvents extends DeviceEvents {
  error: { code: string; message: string };
  /** A failed call is repeated after so many milliseconds. */
  retry: { failures: number; wait: number };
  queueFull: { pending: number };
  /** The stream is connected, or not any more. */
  stream: { isConnected: boolean };
  run: Run;
  status: Status;
}

/** A conflict, and what its user can do about it. */
export interface OpenConflict extends Conflict {
  /** The record becomes what this user wanted, in the fields in question, by a new edit. */
  keepMine(): Promise<void>;
  /** The record stays as it is. */
  keepTheirs(): Promise<void>;
  /** The record becomes the value, null to delete it. */
  merge(value: Payload | null): Promise<void>;
}

/** After a push its ops come back by the stream; if not within so many milliseconds, by a pull. */
const STREAM_PATIENCE = 10_000;
/** With a stream a round begins after so many milliseconds at the latest: it pushes again what was
 * refused for now, and acknowledges what has arrived. */
const EVERY = 30_000;
/** Rounds begin so many milliseconds after each other: of what is written without a pause, many ops
 * share one. */
const ROUND = 100;
const COUNT_AFTER = 100;

/** One store, kept in step with its workspace. */
export class Sync {
  readonly status = new Observable<Status>({
    phase: 'stopped',
    online: false,
    isLeader: false,
    pending: 0,
    blocked: 0,
    conflicts: 0,
    failed: 0,
    lastSynced: null,
    progress: null,
    scopes: { followed: null, wished: null },
    error: null,
  });
  /** The conflicts that nobody has resolved; one list as long as they stay the same. */
  readonly openConflicts = new Observable<OpenConflict[]>([]);
  readonly #events = new Emitter<SyncEvents>();
  readonly #options: SyncOptions;
  readonly #filter: string[] | null;
  readonly #store: Store;
  readonly #device: Device;
  readonly #live: Live;
  readonly tables: ReadonlyMap<string, TableOptions>;
  #tabs: Tabs | undefined;
  #leading: Promise<void> = Promise.resolve();
  #turn: Promise<unknown> = Promise.resolve();
  #wake: () => void = () => {};
  /** After a failure only time, the network or the app's `retry` begins another round. */
  #isResting = false;
  /** A stream serves this workspace, or tries to; it is connected. */
  #isFollowing = false;
  #isConnected = false;
  /** The first pull or snapshot is not complete. */
  #isFirst = false;
  // In time that no change of the system's clock moves.
  #pullAt = 0;
  #acknowledgeAt = 0;
  /** Ops wait for something on the server. */
  #isBlocked = false;
  #counting: ReturnType<typeof setTimeout> | undefined;
  #openIds = '';
  #run: Run = { at: 0, took: 0, pushed: 0, pulled: 0 };

  constructor(options: SyncOptions, makeStore: (sync: Sync) => Store) {
    const { tables, workspace, user = null, filter, scopes, pushLimit = 500, pageLimit = 1000 } = options;
    this.#options = options;
    this.tables = new Map(Array.isArray(tables) ? tables.map((name) => [name, {}]) : Object.entries(tables));
    this.#filter = filter?.toSorted() ?? null;
    this.#store = makeStore(this);
    this.#live = liveOf(options);
    this.#device = new Device(this.#store, new Server(options), {
      workspace,
      user,
      filter: this.#filter,
      scopes: scopes?.toSorted() ?? null,
      fields: Object.fromEntries([...this.tables].map(([name, { fields = null }]) => [name, fields])),
      rulesOf: (name) => this.tables.get(name) ?? {},
      tell: (event, detail) => this.#tell(event, detail),
      now: Date.now,
      pushLimit,
      pageLimit,
    });
  }

  on<E extends keyof SyncEvents>(event: E, listener: (detail: SyncEvents[E]) => void): () => void {
    return this.#events.on(event, listener);
  }

  /** Begins. Resolves once the store is ready: from then on, what it has is shown and kept in step. */
  async start(): Promise<void> {
    if (this.#tabs) return;
    this.#set({ phase: 'starting', error: null });
    const tabs = new Tabs(this.#store.name, {
      // What led before, here, ends first: it may still be storing something.
      lead: (signal) => (this.#leading = this.#leading.then(() => this.#lead(signal))),
      receive: (message) => this.#receive(message),
      status: () => this.status.value,
    });
    this.#tabs = tabs;
    try {
      const { isComplete } = await this.#device.open();
      this.#isFirst = !isComplete;
      await this.#look();
    } catch (error) {
      // It may have been stopped meanwhile, and even started again.
      if (this.#tabs !== tabs) return;
      this.#fail(error);
      this.stop();
      throw error;
    }
    if (this.#tabs !== tabs) return;
    tabs.start();
  }

  /** Ends all calls. What the app writes is kept, and pushed after the next start. */
  stop(): void {
    this.#tabs?.stop();
    this.#tabs = undefined;
    this.#set({ isLeader: false, online: false, phase: 'stopped' });
  }

  /** The scopes that are followed, and those that are to be. */
  get scopes(): Scopes {
    return this.status.value.scopes;
  }

  /** Follows other scopes, null for all. Resolves once the wish is stored: from then on it will be
   * carried out, by whichever tab and after any restart, when the server can be reached. The last
   * wish counts. The event `scopes` tells that it is carried out. */
  async setScopes(scopes: string[] | null): Promise<void> {
    await this.#device.wish(scopes?.toSorted() ?? null);
    await this.#look();
    this.retry();
  }

  /** Synchronizes now, also after a refusal. */
  retry(): void {
    this.#retry();
    this.#tabs?.send({ type: 'retry' });
  }

  #retry(): void {
    this.#isResting = false;
    this.#pullAt = 0;
    this.#live.retry();
    this.#wake();
  }

  /** The ops that the server does not hold for good, in the order in which they were made. */
  async pending(): Promise<Op[]> {
    return await this.#store.read(async (tx) => (await tx.outbox()).map(({ op }) => op));
  }

  /** Takes a pending op back, with the patches that build on it. If it was sent, the server may
   * have it. */
  async discard({ tableName, pk, stamp }: Op): Promise<void> {
    await this.#store.transaction(async (tx) => {
      const [was] = await tx.known([keyOf(tableName, pk)]);
      const entries = was!.entries.filter(({ op }) => op.stamp.opId !== stamp.opId && op.base?.opId !== stamp.opId);
      await tx.save([{ was: was!, entries }]);
    });
    this.captured();
  }

  async conflicts(): Promise<OpenConflict[]> {
    return this.#open(await this.#store.read((tx) => tx.conflicts()));
  }

  #open(conflicts: Conflict[]): OpenConflict[] {
    return conflicts.map((conflict) => ({
      ...conflict,
      keepMine: () => this.#resolve(conflict, conflict.mine, conflict.fields),
      keepTheirs: () => this.#resolve(conflict),
      merge: (value: Payload | null) => this.#resolve(conflict, value),
    }));
  }

  async #resolve({ id, tableName, pk }: Conflict, value?: Payload | null, fields?: string[]): Promise<void> {
    const key = keyOf(tableName, pk);
    await this.#store.transaction(async (tx) => {
      await tx.removeConflict(id);
      if (value === undefined) return;
      const state = await this.#device.state(tx);
      const known = await tx.known([key]);
      const { payload } = see(known[0]!.synced, known[0]!.entries);
      // In other fields it stays what others have made of it.
      if (fields && value && payload) {
        value = { ...payload, ...Object.fromEntries(fields.map((name) => [name, value![name]!])) };
      }
      await this.#device.record(tx, state, known, new Map([[key, value]]));
    });
    this.captured();
  }

  /** All that helps to find out what is wrong: no payload but those of pending ops. */
  async export(): Promise<unknown> {
    return await this.#store.read(async (tx) => ({
      status: this.status.value,
      state: await tx.state(),
      outbox: await tx.outbox(),
      conflicts: await tx.conflicts(),
      runs: await tx.runs(),
      records: (await tx.syncedKeys()).length,
    }));
  }

  /** Forgets the user: all records, and the app's rows. Fails while ops are pending, unless they
   * are to be lost. */
  async logout({ discardPending = false } = {}): Promise<void> {
    await this.#store.transaction(async (tx) => {
      const { pending } = await tx.counts();
      if (pending > 0 && !discardPending) {
        throw new SyncError('PENDING', `${pending} edits are pending`);
      }
      const state = await this.#device.state(tx);
      await tx.clear([...this.tables.keys()]);
      await tx.setState({ ...state, isClosed: true });
    });
    this.#tabs?.send({ type: 'logout' });
    this.stop();
    this.#count();
  }

  /** For a store: what the app has written, in its transaction. */
  async capture(tx: Tx, state: State | undefined, known: Known[], values: Map<Key, Payload | null>): Promise<void> {
    const present = await this.#device.state(tx, state);
    if (present !== state) await tx.setState(present);
    await this.#device.record(tx, present, known, values);
  }

  /** For a store: the transaction of a capture is complete. */
  captured(): void {
    // A leader tells others of its status too, when it has counted.
    if (!this.#counting || !this.#tabs?.isLeader) this.#tabs?.send({ type: 'captured' });
    this.#count();
    this.#wakeUnlessResting();
  }

  /** For a store: it cannot be opened. */
  blocked(): void {
    const message = 'another tab holds the database open';
    this.#set({ phase: 'storage', error: { code: 'BLOCKED', message } });
  }

  /** For a store: its database was closed, perhaps because the browser has removed it. Then, and
   * when a stream does not go on, it pulls and opens another one. */
  closed(): void {
    this.#isFollowing = false;
    this.#isConnected = false;
    this.#pullAt = 0;
    this.#wakeUnlessResting();
  }

  #wakeUnlessResting(): void {
    if (!this.#isResting) this.#wake();
  }

  #receive(message: Message): void {
    if (message.type === 'captured') this.#wakeUnlessResting();
    else if (message.type === 'retry') this.#retry();
    else if (message.type === 'logout') this.stop();
    else if (message.type === 'event') {
      if (message.name === 'scopes') this.closed();
      this.#events.emit(message.name as 'run', message.detail as Run);
    }
    else if (message.type === 'leader' && !this.#tabs?.isLeader) {
      const { pending, blocked, conflicts, failed, scopes } = this.status.value;
      this.#set({ ...message.status as Status, pending, blocked, conflicts, failed, scopes, isLeader: false });
    }
    this.#count();
  }

  #set(change: Partial<Status>): void {
    const old = this.status.value;
    const isNews = Object.entries(change).some(([name, value]) => !isEqual(old[name as 'phase'], value as string));
    if (!isNews) return;
    this.status.set({ ...old, ...change });
    this.#events.emit('status', this.status.value);
    if (this.status.value.isLeader) this.#tabs?.announce();
  }

  /** Of what the device does. */
  #tell<E extends keyof DeviceEvents>(event: E, detail: DeviceEvents[E]): void {
    if (event === 'pushed') this.#run.pushed += (detail as DeviceEvents['pushed']).ops.length;
    if (event === 'pulled') {
      const { changes, cursor, head } = detail as DeviceEvents['pulled'];
      this.#run.pulled += changes;
      if (this.#isFirst) {
        const records = (this.status.value.progress?.records ?? 0) + changes;
        this.#set({ progress: { records, share: cursor / head } });
      }
    }
    if (event === 'progress') {
      const { received, stored } = detail as DeviceEvents['progress'];
      this.#set({ progress: { records: received, share: stored > 0 ? stored / received : null } });
    }
    if (event === 'conflict' || event === 'scopes') this.#count();
    // The stream is of the old ones.
    if (event === 'scopes') this.closed();
    if (event === 'captured') this.#events.emit(event, detail as SyncEvents[E]);
    else this.#emit(event, detail as SyncEvents[E]);
  }

  /** Tells this tab's listeners and those of others. */
  #emit<E extends keyof SyncEvents>(name: E, detail: SyncEvents[E]): void {
    this.#events.emit(name, detail);
    this.#tabs?.send({ type: 'event', name, detail });
  }

  /** Looks soon, once for many changes. */
  #count(): void {
    this.#counting ??= setTimeout(() => void this.#look().catch((error) => this.#fail(error)), COUNT_AFTER);
  }

  /** Looks at what the store has to tell: what is pending, what is followed. */
  async #look(): Promise<void> {
    this.#counting = undefined;
    const [{ pending, blocked }, open, state] = await this.#store.read(async (tx) => (
      [await tx.counts(), await tx.conflicts(), await tx.state()] as const
    ), ['state', 'outbox', 'conflict']);
    const { queueLimit = 10_000 } = this.#options;
    if (pending >= queueLimit && this.status.value.pending < queueLimit) this.#events.emit('queueFull', { pending });
    const ids = open.map(({ id, at }) => id + at).join();
    if (ids !== this.#openIds) this.openConflicts.set(this.#open(open));
    this.#openIds = ids;
    const failed = open.filter(({ kind }) => kind === 'refused').length;
    const scopes = { followed: state?.scopes ?? null, wished: state?.wished ?? null };
    this.#set({ pending, blocked, conflicts: open.length, failed, scopes });
  }

  /** One call, or event, at a time. */
  async #inTurn<T>(body: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(body);
    this.#turn = turn.catch(() => {});
    return await turn;
  }

  async #lead(signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    this.#set({ isLeader: true });
    globalThis.addEventListener?.('online', () => this.retry(), { signal });
    let unfollow: (() => void) | undefined;
    this.closed();
    for (let failures = 0; !signal.aborted;) {
      let wait: number;
      const began = performance.now();
      const rest = new AbortController();
      this.#wake = () => rest.abort();
      this.#isResting = false;
      try {
        await this.#inTurn(() => this.#round(signal));
        if (failures > 0) this.#live.retry();
        failures = 0;
        if (this.#options.live !== false && !this.#isFollowing) {
          unfollow?.();
          unfollow = this.#live.follow(this.#follower(signal));
          this.#isFollowing = true;
        }
        wait = await this.#due();
      } catch (error) {
        if (signal.aborted) break;
        this.#pullAt = 0;
        const isLate = (error as SyncError).code === 'LATE';
        wait = isLate ? 0 : this.#fail(error, ++failures);
        this.#isResting = !isLate;
      }
      await sleep(wait, AbortSignal.any([signal, rest.signal]));
      await sleep(began + ROUND - performance.now(), signal);
    }
    unfollow?.();
    this.#set({ isLeader: false });
  }

  /** Pushes, and pulls and acknowledges if that is due. */
  async #round(signal: AbortSignal): Promise<void> {
    const begun = performance.now();
    const run: Run = { at: Date.now(), took: 0, pushed: 0, pulled: 0 };
    this.#run = run;
    if (this.#isConnected && this.#pullAt > 0 && !(await this.#outbox()).some(isUnsettled)) this.#pullAt = Infinity;
    const pulls = !this.#isConnected || performance.now() >= this.#pullAt;
    if (pulls) this.#set({ phase: 'syncing' });
    try {
      await this.#device.push(signal);
      if (pulls || this.#device.hasMore) {
        // Somebody may want another one meanwhile.
        this.#pullAt = Infinity;
        await this.#device.pull(signal);
        this.#isFirst = false;
      }
      if (performance.now() >= this.#acknowledgeAt) {
        this.#acknowledgeAt = performance.now() + EVERY;
        await this.#device.acknowledge(signal);
      }
    } catch (error) {
      run.error = String(error);
      throw error;
    } finally {
      if (run.pushed + run.pulled > 0 || run.error) {
        run.took = Math.round(performance.now() - begun);
        this.#emit('run', run);
        this.#count();
        await this.#store.transaction((tx) => tx.log(run), ['run']);
      }
    }
    signal.throwIfAborted();
    const phase = this.#isConnected ? 'live' : 'polling';
    this.#set({ phase, online: true, error: null, progress: null, lastSynced: Date.now() });
  }

  async #outbox(): Promise<Entry[]> {
    return await this.#store.read((tx) => tx.outbox(), ['outbox']);
  }

  /** Milliseconds until something is due without being asked for. */
  async #due(): Promise<number> {
    const outbox = await this.#outbox();
    const { pollInterval = 30_000 } = this.#options;
    const now = performance.now();
    if (outbox.some(isUnsettled)) this.#pullAt = Math.min(this.#pullAt, now + STREAM_PATIENCE);
    this.#isBlocked = outbox.some(({ answered }) => answered === undefined);
    return Math.min(this.#pullAt - now, this.#isConnected ? EVERY : pollInterval);
  }

  #follower(signal: AbortSignal): Follower {
    return {
      workspace: this.#options.workspace,
      filter: this.#filter,
      position: () => this.#device.read(),
      receive: async (reply, position) => {
        if (signal.aborted) return false;
        const goesOn = await this.#inTurn(() => this.#device.receive(reply, position)).catch((error) => {
          this.#fail(error);
          return false;
        });
        if (!goesOn) this.closed();
        // What waited for something on the server may pass now.
        else if (this.#device.hasMore || (this.#isBlocked && reply.changes.length > 0)) this.#wakeUnlessResting();
        // What is settled is pending no more.
        this.#count();
        return goesOn;
      },
      refused: (error) => {
        this.closed();
        this.#fail(error);
      },
      connected: (isConnected, error) => {
        if (signal.aborted || isConnected === this.#isConnected) return;
        this.#isConnected = isConnected;
        this.#emit('stream', { isConnected });
        if (isConnected) {
          // Calls are answered again too.
          if (!this.status.value.online) this.#wake();
          this.#set({ phase: 'live', online: true, error: null });
        } else if (error?.code === 'NETWORK') this.#wakeUnlessResting();
      },
    };
  }

  /** Tells of an error. Returns how long to wait. */
  #fail(error: unknown, failures = 1): number {
    const remedy = remedyOf(error);
    // Dexie's tells that a transaction was aborted, and why inside.
    const { name, message, code, status, retryAfter } = (error as { inner?: Error }).inner as SyncError ?? error as SyncError;
    const told = { code: remedy === 'storage' ? name : code, message };
    const phase = { stop: 'refused', login: 'unauthorized', storage: 'storage' } as const;
    this.#set({
      phase: phase[remedy as keyof typeof phase] ?? 'waiting',
      online: status !== undefined,
      error: told,
    });
    this.#emit('error', told);
    if (remedy === 'stop') return Infinity;
    const wait = pauseAfter(failures, retryAfter);
    this.#emit('retry', { failures, wait });
    return wait;
  }
}
