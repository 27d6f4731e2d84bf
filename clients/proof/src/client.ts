import type vm from 'node:vm';
import type { Op, Payload, SyncOptions, TableOptions } from '../../typescript/src/index.ts';
import { Origin, Tab } from './browser.ts';
import { type ClientSetup, type Edit, type Fault, SCOPED, TABLES, type Write } from './history.ts';
import type { Peer } from './network.ts';
import type { App, AppOptions, Row } from './page/app.ts';
import { Random } from './random.ts';
import type { World } from './world.ts';

/** When histories begin. */
const BEGINNING = Date.UTC(2026, 0, 1);
/** In no locale's order but that of bytes, one beyond the units of UTF-16. */
export const PKS = ['a', 'B', 'é', '𝒳'];

/** The tables that each version of the app has synced. The first one keeps cards for itself. */
const SYNCED = [TABLES.filter((name) => name !== 'cards'), TABLES];

/** What the first version writes before anything is synced. */
const CARDS: Edit = {
  writes: [{ kind: 'bulkPut', table: 'cards', pk: 0, fields: 7, value: 1 }],
  isTransaction: false,
  isAborted: false,
};

interface Page {
  tab: Tab;
  app: App;
}

/** A user's browser, with the app in one or two tabs. */
export class Client implements Peer {
  readonly number: number;
  readonly user: string;
  readonly random: Random;
  readonly faults: Fault[] = [];
  readonly setup: ClientSetup;
  readonly #world: World;
  readonly #program: vm.Script;
  isOffline = false;
  origin = new Origin();
  version: number;
  offset: number;
  pages: (Page | undefined)[] = [];
  /** Ops that the user is taking back. */
  readonly discarding = new Set<string>();
  /** The lists of scopes that its user has wished for. */
  readonly wishes = new Set<string>();
  #opened = 0;

  constructor(number: number, setup: ClientSetup, world: World, program: vm.Script) {
    this.number = number;
    this.user = `user ${number}`;
    this.random = new Random(world.history.seed * 100 + number);
    this.setup = setup;
    this.version = setup.version;
    this.offset = setup.offset;
    this.#world = world;
    this.#program = program;
    this.pages = Array.from({ length: setup.tabs }, () => undefined);
  }

  get tables(): string[] {
    return SYNCED[this.version - 1]!;
  }

  /** The fields of a table that its app shows; undefined: all. */
  fieldsOf(table: string): string[] | undefined {
    return this.version === 1 && table === 'notes' ? ['id', 'a', 'b', 'in'] : undefined;
  }

  #options(): AppOptions {
    const { setup } = this;
    const tables = Object.fromEntries(this.tables.map((name): [string, TableOptions] => {
      const fields = this.fieldsOf(name);
      const patches = name === 'notes' || name === 'cards' || name === 'todos';
      return [name, { patches, ...(fields && { fields }), ...(name === 'cards' && { conflicts: 'ask' }) }];
    }));
    const sync: SyncOptions = {
      url: 'http://gateway',
      headers: () => ({ authorization: 'Bearer token' }),
      workspace: this.#world.workspace,
      user: this.user,
      tables,
      live: setup.isLive,
      pushLimit: setup.pushLimit,
      pageLimit: setup.pageLimit,
      ...(setup.isFiltered && { filter: this.tables }),
      ...(setup.scopes && { scopes: setup.scopes }),
    };
    return { sync, tables: TABLES, version: this.version };
  }

  open(number: number): void {
    if (this.pages[number]) return;
    const world = this.#world;
    const { origin } = this;
    origin.committed = (stores) => {
      // Others make and end calls without a reply that is stored.
      if (stores.has('_sync_outbox') || stores.has('_sync_staged')) world.watch.committed(this);
    };
    const tab = new Tab({
      origin,
      time: world.time,
      seed: (world.history.seed * 100 + this.number) * 1000 + this.#opened++,
      hasLocks: this.setup.hasLocks,
      clock: () => BEGINNING + world.time.now + this.offset,
      fetch: (tab, url, init) => world.network.fetch(this, tab, url, init),
      complain: (tab, text) => {
        if (!tab.isDead) world.watch.fail(this, `the console says ${text.join(' ')}`);
      },
    });
    const app = tab.run<{ open(options: AppOptions): App }>(this.#program).open(this.#options());
    tab.onDeath = () => {
      if (this.pages[number]?.tab === tab) this.pages[number] = undefined;
      world.network.release(tab);
    };
    this.pages[number] = { tab, app };
    app.sync.on('error', ({ code, message }) => {
      if (!tab.isDead) world.watch.failed(this, code, message);
    });
    this.start(number);
    if (this.#opened === 1 && this.version === 1) this.edit(number, CARDS);
  }

  start(number: number): void {
    const page = this.pages[number];
    if (page) this.#world.expect(page.app.sync.start(), page.tab);
  }

  /** One of its pages that are open, by its number or the next. */
  page(number: number): Page | undefined {
    const { pages } = this;
    return pages[number % pages.length] ?? pages.find((page) => page);
  }

  edit(number: number, edit: Edit): void {
    const page = this.page(number);
    if (!page) return;
    const rowOf = (write: Write) => this.rowOf(write);
    this.#world.expect(page.app.edit(edit, rowOf), page.tab);
  }

  rowOf({ kind, table, pk, fields, value }: Write): Row {
    const isPart = kind === 'update' || kind === 'modify';
    const has = (bit: number) => !isPart || fields === 0 || (fields & bit) > 0;
    const id = this.#world.pkOf(table, pk);
    let row: Payload;
    if (table === 'lists') row = { ...(value % 10 > 0 && { title: `list ${value}` }) };
    else if (table === 'todos') {
      row = {
        ...(has(1) && { list_id: this.#world.pkOf('lists', value) }),
        // Some break a rule of the table.
        ...(has(2) && { title: value % 7 === 0 ? '' : `todo ${value}` }),
        ...(has(4) && { n: value % 11 === 0 ? 'many' : value }),
      };
    } else {
      row = {
        ...(has(1) && { a: value }),
        ...(has(2) && { b: `text ${value}` }),
        // An update may move it, a put may leave out where it is.
        ...(SCOPED.includes(table) && has(2) && value % 4 > 0 && { in: `p${value % 3}` }),
        ...(has(4) && !this.fieldsOf(table) && { c: [value, { deep: value % 2 === 0 }] }),
      };
    }
    return { ...row, id };
  }

  resolve(number: number, ...how: Parameters<App['resolve']>): void {
    const page = this.page(number);
    if (page) this.#world.expect(page.app.resolve(...how), page.tab);
  }

  /** Its user takes a pending op back. */
  async discard(number: number, which: (op: Op, at: number, all: Op[]) => boolean): Promise<void> {
    const page = this.page(number);
    if (!page) return;
    const pending = await page.app.pending();
    const op = pending.find(which);
    if (!op || page.tab.isDead) return;
    for (const other of [op, ...pending.filter(({ base }) => base?.opId === op.stamp.opId)]) {
      this.discarding.add(other.stamp.opId);
    }
    await page.app.sync.discard(op);
  }

  async follow(number: number, list: string[] | null): Promise<void> {
    const page = this.page(number);
    if (!page) return;
    const text = JSON.stringify(list?.toSorted() ?? null);
    this.wishes.add(text);
    await page.app.sync.setScopes(list);
    if (!page.tab.isDead) this.#world.watch.promised(this, text);
  }

  async evict(): Promise<void> {
    for (const page of this.pages) page?.tab.kill();
    await this.origin.evict();
    this.origin = new Origin();
    this.#world.watch.evicted(this);
  }

  close(number: number): void {
    const page = this.pages[number];
    if (!page) return;
    page.app.close();
    // A browser lets a page finish no more than that.
    page.tab.kill();
  }
}

/** The pk of a table's record: those of typed tables are unique among all workspaces. */
export function pkOf(workspace: string, table: string, number: number): string {
  const pk = PKS[number % PKS.length]!;
  return table === 'lists' || table === 'todos' ? `${workspace}:${pk}` : pk;
}

