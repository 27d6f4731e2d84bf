import { see, type Entry, type Synced } from '../rules/view.ts';
import type { Op, SnapshotItem } from '../wire.ts';
import { replacements } from './replacements.ts';
import { type Changed, type Conflict, type Key, type Known, RUNS_KEPT, type Row, type Run, type State, type Store, type Tx, keyOf, partsOf } from './store.ts';

/** A store that lasts as long as its object: for tests, and as the shortest example of one. */
export class MemoryStore implements Store {
  readonly name: string;
  #content = new Content();
  #turn: Promise<unknown> = Promise.resolve();

  constructor(name = 'memory') {
    this.name = name;
  }

  /** What the app sees: payloads by key. */
  get rows(): ReadonlyMap<Key, unknown> {
    return this.#content.rows;
  }

  transaction<T>(body: (tx: Tx) => Promise<T>): Promise<T> {
    const run = this.#turn.then(async () => {
      const content = copyOf(this.#content);
      const result = await body(new MemoryTx(content));
      this.#content = copyOf(content);
      return result;
    });
    this.#turn = run.catch(() => {});
    return run;
  }

  async read<T>(body: (tx: Tx) => Promise<T>): Promise<T> {
    return await body(new MemoryTx(copyOf(this.#content)));
  }
}

class Content {
  state: State | undefined;
  synced = new Map<Key, Synced>();
  outbox: Entry[] = [];
  staged = new Map<number, SnapshotItem[]>();
  conflicts = new Map<string, Conflict>();
  runs: Run[] = [];
  rows = new Map<Key, unknown>();
}

/** Nobody has a part of what is kept in hand. */
function copyOf(content: Content): Content {
  return Object.assign(new Content(), structuredClone({ ...content }));
}

const keyOfEntry = ({ op }: Entry) => keyOf(op.tableName, op.pk);

class MemoryTx implements Tx {
  readonly #content: Content;

  constructor(content: Content) {
    this.#content = content;
  }

  async state() {
    return this.#content.state;
  }

  async setState(state: State) {
    this.#content.state = state;
  }

  async known(keys: readonly Key[]): Promise<Known[]> {
    const { synced, outbox } = this.#content;
    return keys.map((key) => ({
      key,
      synced: synced.get(key),
      entries: outbox.filter((entry) => keyOfEntry(entry) === key),
    }));
  }

  async save(changes: readonly Changed[]) {
    for (const { was, synced, entries } of changes) {
      const { key } = was;
      if (synced) this.#content.synced.set(key, synced);
      else if (synced === null) this.#content.synced.delete(key);
      if (entries) this.#replace(was.entries, entries);
    }
    await this.show(changes.map(({ was }) => was.key));
  }

  async show(keys: readonly Key[]) {
    for (const { key, synced, entries } of await this.known(keys)) {
      if (!this.#content.state?.tables.includes(partsOf(key).tableName)) continue;
      const { payload } = see(synced, entries);
      if (payload) this.#content.rows.set(key, payload);
      else this.#content.rows.delete(key);
    }
  }

  #replace(old: readonly Entry[], entries: readonly Entry[]) {
    const { outbox } = this.#content;
    for (const [opId, by] of replacements(old, entries)) {
      const at = outbox.findIndex(({ op }) => op.stamp.opId === opId);
      outbox.splice(at < 0 ? outbox.length : at, 1, ...(by ? [by] : []));
    }
  }

  async outbox() {
    return [...this.#content.outbox];
  }

  async markSent(ops: readonly Op[]) {
    const ids = new Set(ops.map(({ stamp }) => stamp.opId));
    for (const entry of this.#content.outbox) if (ids.has(entry.op.stamp.opId)) entry.sent = true;
  }

  async counts() {
    const { outbox } = this.#content;
    return { pending: outbox.length, blocked: outbox.filter(({ retry }) => retry !== undefined).length };
  }

  async syncedKeys() {
    return [...this.#content.synced.keys()];
  }

  async stage(page: number, items: SnapshotItem[]) {
    this.#content.staged.set(page, items);
  }

  async staged(page: number) {
    return this.#content.staged.get(page) ?? [];
  }

  async unstage() {
    this.#content.staged.clear();
  }

  async conflicts() {
    return [...this.#content.conflicts.values()];
  }

  async putConflict(conflict: Conflict) {
    this.#content.conflicts.set(conflict.id, conflict);
  }

  async removeConflict(id: string) {
    this.#content.conflicts.delete(id);
  }

  async runs() {
    return [...this.#content.runs];
  }

  async log(run: Run) {
    this.#content.runs = [...this.#content.runs, run].slice(-RUNS_KEPT);
  }

  async rows(tableName: string, after: string | null, limit: number): Promise<Row[]> {
    return [...this.#content.rows]
      .map(([key, value]) => ({ ...partsOf(key), value }))
      .filter((row) => row.tableName === tableName && (after === null || row.pk > after))
      .sort((a, b) => (a.pk < b.pk ? -1 : 1))
      .slice(0, limit)
      .map(({ pk, value }) => ({ pk, value }));
  }

  async clear(tables: readonly string[]) {
    const rows = [...this.#content.rows].filter(([key]) => !tables.includes(partsOf(key).tableName));
    Object.assign(this.#content, new Content(), { rows: new Map(rows) });
  }
}
