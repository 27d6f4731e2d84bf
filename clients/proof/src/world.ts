import type vm from 'node:vm';
import { type Backend, type Logged } from './backend.ts';
import type { Tab } from './browser.ts';
import { Client, PKS, pkOf } from './client.ts';
import type { Action, History, Step } from './history.ts';
import { judge } from './judge.ts';
import { Network } from './network.ts';
import { Tally } from './tally.ts';
import { same } from './view.ts';
import { Time, turn } from './time.ts';
import { Watch } from './watch.ts';

/** What an app's edit or call may fail with: the rules of IndexedDB, its own second thoughts. */
const EXPECTED = /^(ConstraintError|AbortError|DatabaseClosedError|BulkError|ModifyError|InvalidStateError|TransactionInactiveError|OpenFailedError)$|thinks better/;

/** Rounds in which a healed world must come to rest. */
const ROUNDS = 40;
/** Milliseconds of a round: more than any pause of a client. */
const ROUND = 65_000;

/** A piece of the server's history: a restore, or a workspace that is made again, begins another. */
export type Era = Map<number, Logged>;

/** A server, its clients and what lies between them. */
export class World {
  readonly history: History;
  readonly backend: Backend;
  readonly workspace: string;
  readonly tally = new Tally();
  readonly watch: Watch;
  readonly network: Network<Client>;
  readonly time: Time;
  readonly clients: Client[];
  readonly eras: Era[] = [new Map()];
  #backup: { era: Era; exists: boolean } | undefined;
  #exists = true;
  #isServerUp = true;
  /** What goes on beside the steps. */
  readonly #going = new Set<Promise<unknown>>();

  constructor(history: History, workspace: string, backend: Backend, program: vm.Script) {
    this.history = history;
    this.backend = backend;
    this.workspace = workspace;
    this.watch = new Watch(this.tally, () => this.eras.length - 1);
    this.network = new Network(this.watch, { head: () => (this.#isServerUp && this.#exists ? this.watch.head : 0) });
    this.network.url = () => this.backend.url;
    this.network.purge = () => this.#overtake();
    this.time = new Time(this.network);
    this.network.time = this.time;
    this.clients = history.clients.map((setup, i) => new Client(i, setup, this, program));
  }

  pkOf(table: string, number: number): string {
    return pkOf(this.workspace, table, number);
  }

  /** Plays the history, and judges how it ends. */
  async play(): Promise<void> {
    await this.backend.createWorkspace(this.workspace, this.clients.map(({ user }) => user));
    if (this.history.isFilled) {
      const pks = PKS.flatMap((pk) => [pk, `${pk}1`]);
      await this.backend.put(this.workspace, 'notes', pks, 0);
      this.watch.head = pks.length;
    }
    try {
      for (const client of this.clients) client.pages.forEach((_, i) => client.open(i));
      for (const step of this.history.steps) {
        await this.#play(step);
        this.#check();
      }
      await this.#heal();
      this.#check();
      await judge(this);
    } finally {
      await this.#end();
    }
  }

  async #end(): Promise<void> {
    for (const client of this.clients) for (const page of client.pages) page?.tab.kill();
    this.network.loseRequests();
    this.network.cutStreams(undefined, false);
    await this.time.settle();
    await Promise.all(this.#going);
    if (!this.#isServerUp) await this.#raiseServer();
    if (!this.backend.url) await this.backend.startGateway();
    await this.backend.dropWorkspace(this.workspace);
  }

  #check(): void {
    if (this.watch.failures.length > 0) throw new Error(this.watch.failures.slice(0, 3).join('\n'));
  }

  /** What a tab does on its own must not fail but as it may. */
  expect(work: Promise<unknown>, tab: Tab): void {
    work.catch((error: Error) => {
      if (tab.isDead || EXPECTED.test(error.name) || EXPECTED.test(error.message)) return;
      this.watch.failures.push(`a call of the app fails: ${error.stack}`);
    });
  }

  async #play({ wait, action }: Step): Promise<void> {
    this.tally.add(`steps ${action.kind}`);
    if (wait < 0) for (let i = 0; i < -wait; i++) await turn();
    else await this.time.advance(wait);
    const isOfServer = ['role', 'purge', 'backup', 'restore', 'drop', 'backend'].includes(action.kind);
    if (!isOfServer) return await this.#act(action);
    if (action.kind === 'restore' && this.#backup) await this.#untilAnswered();
    // What is on its way to the server belongs to one side of it.
    await this.time.settle();
    if (this.#isServerUp) await this.network.outside(this.#act(action));
  }

  /** A restore is worst for who was answered, and has not pulled since. */
  async #untilAnswered(): Promise<void> {
    const isAnswered = () => this.clients.some((client) => (
      this.watch.told(client).last.pending.some(({ answered }) => answered !== undefined)
    ));
    for (let i = 0; i < 100 && !isAnswered(); i++) await this.time.advance(5);
  }

  async #act(action: Action): Promise<void> {
    const { watch, time, network, backend, workspace } = this;
    const client = this.clients['client' in action ? action.client % this.clients.length : 0]!;
    const page = 'tab' in action ? client.page(action.tab) : undefined;
    const number = page ? client.pages.indexOf(page) : 0;
    switch (action.kind) {
      case 'edit':
        return client.edit(action.tab, action.edit);
      case 'resolve': {
        const { which, how, value } = action;
        return client.resolve(action.tab, which, how, value === null ? null : { a: value, title: `merged ${value}` });
      }
      case 'discard':
        if (page) this.expect(client.discard(number, (_, i, { length }) => i === action.which % length), page.tab);
        return;
      case 'scopes':
        if (page) this.expect(client.follow(number, action.list), page.tab);
        return;
      case 'retry':
        return page?.app.sync.retry();
      case 'stop':
        return page?.app.sync.stop();
      case 'start':
        return page ? client.start(number) : client.open(action.tab % client.pages.length);
      case 'close':
        return client.close(number);
      case 'show':
      case 'hide':
        return page?.tab.show(action.kind === 'show');
      case 'kill':
        page?.tab.killAfter(action.after);
        if (page) time.set(this, action.reopen, () => {
          page.tab.kill();
          client.open(number);
        });
        return;
      case 'fault':
        client.faults.push(action.fault);
        return;
      case 'offline':
        client.isOffline = true;
        network.cutStreams(client, false);
        time.set(this, action.time, () => this.#goOnline(client));
        return;
      case 'cutStreams':
        return network.cutStreams(client, action.isSilent);
      case 'wrongClock':
        client.offset += action.offset;
        return;
      case 'evict':
        await client.evict();
        client.pages.forEach((_, i) => client.open(i));
        return;
      case 'upgrade':
        client.pages.forEach((_, i) => client.close(i));
        client.version = 2;
        client.pages.forEach((_, i) => client.open(i));
        return;
      case 'role':
        if (!this.#exists) return;
        await backend.setRole(workspace, client.user, action.role);
        time.set(this, action.time, () => this.#go(() => this.#promote(client)));
        return;
      case 'purge':
        return await this.#purge(action.sleepers);
      case 'killServer':
        return await this.#killServer(action.time);
      case 'killGateway':
        network.cutStreams(undefined, false);
        await network.outside(backend.stopGateway());
        time.set(this, action.time, () => this.#go(() => this.backend.startGateway()));
        return;
      case 'backup':
        await this.note();
        await backend.backUp();
        this.#backup = { era: new Map(this.era), exists: this.#exists };
        return;
      case 'restore':
        return await this.#restore();
      case 'drop':
        return await this.#drop(action.time);
      case 'backend':
        await this.#write(action.write, action.pk, action.value);
        watch.head = Math.max(watch.head, await backend.head(workspace));
        return;
    }
  }

  /** Something that takes its real time; what happens later at this time waits for it. */
  #go(work: () => Promise<unknown>): void {
    const going = this.network.outside(work()).catch((error: Error) => {
      this.watch.failures.push(`the world fails: ${error.stack}`);
    }).finally(() => this.#going.delete(going));
    this.#going.add(going);
  }

  get era(): Era {
    return this.eras.at(-1)!;
  }

  /** Remembers what the log has: some of it will be purged. */
  async note(): Promise<void> {
    for (const entry of await this.backend.log(this.workspace)) this.era.set(entry.version, entry);
  }

  #goOnline(client: Client): void {
    client.isOffline = false;
    for (const page of client.pages) page?.tab.online();
  }

  async #promote(client: Client): Promise<void> {
    if (!this.#exists || !this.#isServerUp) return;
    await this.backend.setRole(this.workspace, client.user, 'editor');
    for (const page of client.pages) page?.app.sync.retry();
  }

  async #purge(sleepers: number): Promise<void> {
    if (!this.#exists) return;
    await this.backend.age(this.workspace);
    // What comes now is too young to be purged.
    await this.note();
    const devices = this.clients.filter((_, i) => (sleepers >> i) % 2 === 1)
      .map((client) => this.watch.told(client).last.state?.deviceId ?? '');
    this.tally.add('entries purged', await this.backend.purge(this.workspace, devices));
  }

  /** Somebody writes what is purged at once, whoever has still to hear of it. */
  async #overtake(): Promise<void> {
    if (!this.#exists || !this.#isServerUp) return;
    for (const value of [1, 2]) await this.backend.put(this.workspace, 'notes', [this.pkOf('notes', 0)], value);
    this.watch.head = Math.max(this.watch.head, await this.backend.head(this.workspace));
    await this.#purge(31);
  }

  async #killServer(time: number): Promise<void> {
    if (!this.#isServerUp) return;
    this.#isServerUp = false;
    await this.network.outside(this.backend.killServer());
    this.time.set(this, time, () => this.#go(() => this.#raiseServer()));
  }

  async #raiseServer(): Promise<void> {
    if (this.#isServerUp) return;
    await this.backend.restartServer();
    this.#isServerUp = true;
  }

  async #restore(): Promise<void> {
    if (!this.#backup) return;
    await this.note();
    this.network.loseRequests();
    await this.backend.restore();
    this.tally.add('restores');
    this.tally.add('entries lost in restores', this.era.size - this.#backup.era.size);
    this.eras.push(new Map(this.#backup.era));
    this.#exists = this.#backup.exists;
    this.watch.head = await this.backend.head(this.workspace);
    if (!this.#exists) await this.#create();
  }

  async #drop(time: number): Promise<void> {
    if (!this.#exists) return;
    await this.note();
    this.network.loseRequests();
    await this.backend.dropWorkspace(this.workspace);
    this.#exists = false;
    this.eras.push(new Map());
    this.watch.head = 0;
    this.time.set(this, time, () => this.#go(() => this.#create()));
  }

  async #create(): Promise<void> {
    if (this.#exists || !this.#isServerUp) return;
    await this.backend.createWorkspace(this.workspace, this.clients.map(({ user }) => user));
    this.#exists = true;
    for (const client of this.clients) for (const page of client.pages) page?.app.sync.retry();
  }

  /** Somebody writes by SQL. */
  async #write(write: 'insert' | 'update' | 'delete' | 'put', pk: number, value: number): Promise<void> {
    if (!this.#exists) return;
    const { workspace, backend } = this;
    const id = this.pkOf('lists', pk);
    if (write === 'put') {
      const payload = JSON.stringify(value % 2 === 0 ? { a: value } : { id: this.pkOf('notes', pk), c: value });
      await backend.query('select sync_put($1, $2, $3, $4::json)', [workspace, 'notes', this.pkOf('notes', pk), payload]);
    } else if (write === 'insert') {
      await backend.query('insert into lists values ($1, $2, $3) on conflict (id) do update set title = $3', [id, workspace, `list ${value}`]);
    } else if (write === 'update') {
      await backend.query('update todos set done = not done, n = $2 where workspace_id = $1', [workspace, value]);
    } else {
      await backend.query('delete from lists where id = $1', [id]);
    }
  }

  /** Everything works again: all must come to rest. */
  async #heal(): Promise<void> {
    await this.time.advance(0);
    await Promise.all(this.#going);
    const { backend, clients } = this;
    if (!this.#isServerUp) await this.#raiseServer();
    if (!backend.url) await backend.startGateway();
    await this.#create();
    await backend.query('select sync_put($1, $2, $3, $4::json)', [this.workspace, 'files', 'last', '{"id": "last"}']);
    this.watch.head = await backend.head(this.workspace);
    for (const client of clients) {
      client.faults.length = 0;
      await backend.setRole(this.workspace, client.user, 'editor');
      this.#goOnline(client);
      client.pages.forEach((_, i) => (client.pages[i] ? client.start(i) : client.open(i)));
    }
    for (let round = 1; ; round++) {
      await this.time.advance(ROUND);
      await Promise.all(this.#going);
      this.#check();
      const restless = await this.#restless();
      if (restless.length === 0) return;
      if (round >= ROUNDS) throw new Error(`does not come to rest: ${restless.join(', ')}`);
      for (const client of clients) {
        client.pages.forEach((_, i) => client.open(i));
        for (const page of client.pages) page?.app.sync.retry();
        if (round > 1) await this.#giveUp(client);
      }
    }
  }

  /** Its user takes back what cannot come through. */
  async #giveUp(client: Client): Promise<void> {
    for (const { op, retry } of this.watch.told(client).last.pending) {
      if (retry !== undefined) await client.discard(0, ({ stamp }) => stamp.opId === op.stamp.opId);
    }
  }

  async #restless(): Promise<string[]> {
    const head = await this.backend.head(this.workspace);
    const cursors = await this.backend.cursors(this.workspace);
    return this.clients.flatMap((client) => {
      const { state, pending } = this.watch.told(client).last;
      const reasons = [
        pending.length > 0 && `${pending.length} pending ${JSON.stringify(pending[0])}`,
        state?.cursor !== head && `cursor ${state?.cursor} of ${head}`,
        state?.snapshot && 'a snapshot',
        state && !same(state.scopes, state.wished) && `the scopes ${JSON.stringify([state.scopes, state.wished])}`,
        state && cursors.get(state.deviceId) !== state.cursor && `acknowledged ${cursors.get(state.deviceId)} of ${state.cursor}`,
      ].filter(Boolean);
      const phases = client.pages.map((page) => page && `${page.app.sync.status.value.phase} ${page.app.sync.status.value.error?.message ?? ''}`);
      return reasons.length > 0 ? [`${client.user} (${phases.join(' and ')}): ${reasons.join(', ')}`] : [];
    });
  }
}

