import { done, results } from './requests.ts';
import type { Key } from './store.ts';

/** Values that lie together, at most one of a record: one record of IndexedDB, and so one write,
 * for many. */
export interface Chunk<T> {
  seq?: number;
  /** Of the records that the values belong to. */
  keys: Key[];
  /** Of those that another index has. */
  marked?: Key[];
  values: T[];
}

export interface Layout<T> {
  /** The number of values that may lie together. */
  size: number;
  keyOf(value: T): Key;
  /** Names the value among all. */
  idOf(value: T): string;
  isMarked?(value: T): boolean;
}

/** What one transaction reads and writes of a store of chunks, whose indexes are `*keys` and
 * perhaps `*marked`. */
export class Chunks<T> {
  readonly #trans: IDBTransaction;
  readonly #name: string;
  readonly #layout: Layout<T>;
  /** Those that were read, by seq. */
  readonly #met = new Map<number, Chunk<T>>();
  /** Where each value was read, by its id. */
  readonly #places = new Map<string, Chunk<T>>();
  readonly #touched = new Set<Chunk<T>>();
  #added: T[] = [];
  #isWhole = false;

  constructor(trans: IDBTransaction, name: string, layout: Layout<T>) {
    this.#trans = trans;
    this.#name = name;
    this.#layout = layout;
  }

  get #store(): IDBObjectStore {
    return this.#trans.objectStore(this.#name);
  }

  /** Asks for the chunks of a record. */
  ask(key: Key): IDBRequest<Chunk<T>[]> {
    return this.#store.index('keys').getAll(key);
  }

  /** The values of chunks that were read, each once and in order, as this transaction has them. */
  meet(chunks: Iterable<Chunk<T>>): T[] {
    const met = new Set<Chunk<T>>();
    for (const read of chunks) {
      const chunk = this.#met.get(read.seq!) ?? read;
      met.add(chunk);
      if (this.#met.has(chunk.seq!)) continue;
      this.#met.set(chunk.seq!, chunk);
      for (const value of chunk.values) this.#places.set(this.#layout.idOf(value), chunk);
    }
    return inOrder(met).flatMap(({ values }) => values);
  }

  async all(): Promise<T[]> {
    if (!this.#isWhole) this.meet(await done<Chunk<T>[]>(this.#store.getAll()));
    this.#isWhole = true;
    return this.meet(this.#met.values());
  }

  /** The values of these records, and perhaps of others. Many keys are mostly new, and then
   * between the lowest and the highest there is little to read. */
  async some(keys: readonly Key[]): Promise<T[]> {
    const index = this.#store.index('keys');
    const limit = 2 * keys.length;
    const sorted = keys.toSorted();
    let found = await done(index.getAllKeys(IDBKeyRange.bound(sorted[0], sorted.at(-1)), limit));
    if (found.length === limit) found = (await results(keys.map((key) => index.getKey(key)))).filter((seq) => seq !== undefined);
    return this.meet(await results([...new Set(found)].map((seq) => this.#store.get(seq) as IDBRequest<Chunk<T>>)));
  }

  /** Puts a value in the place of the one with that id, which was read, or where there is none at
   * the end. Without a value the place is empty. */
  put(id: string, value?: T): void {
    const { idOf } = this.#layout;
    const chunk = this.#places.get(id);
    const values = value ? [value] : [];
    if (!chunk) {
      this.#added.push(...values);
      return;
    }
    this.#places.delete(id);
    if (value) this.#places.set(idOf(value), chunk);
    chunk.values.splice(chunk.values.findIndex((other) => idOf(other) === id), 1, ...values);
    this.#touched.add(chunk);
  }

  /** Joins neighbours among the chunks that will be written. All have been read. */
  join(): void {
    const { size, idOf, keyOf } = this.#layout;
    let last: Chunk<T> | undefined;
    for (const chunk of inOrder(this.#met.values())) {
      const isTouched = this.#touched.has(chunk);
      const keys = new Set(last?.values.map(keyOf));
      const isFull = keys.size + chunk.values.length > size;
      if (!last || !isTouched || isFull || chunk.values.some((value) => keys.has(keyOf(value)))) {
        last = isTouched ? chunk : undefined;
        continue;
      }
      for (const value of chunk.values) this.#places.set(idOf(value), last);
      last.values.push(...chunk.values.splice(0));
    }
  }

  write(): IDBRequest[] {
    const { size } = this.#layout;
    const requests: IDBRequest[] = [];
    const emptied: number[] = [];
    for (const chunk of this.#touched) {
      if (chunk.values[0]) requests.push(this.#store.put(this.#fill(chunk)));
      else emptied.push(chunk.seq!);
    }
    for (let i = 0; i < emptied.length;) {
      const first = emptied[i++]!;
      while (emptied[i] === emptied[i - 1]! + 1) i++;
      requests.push(this.#store.delete(IDBKeyRange.bound(first, emptied[i - 1]!)));
    }
    for (let i = 0; i < this.#added.length; i += size) {
      requests.push(this.#store.add(this.#fill({ keys: [], values: this.#added.slice(i, i + size) })));
    }
    if (this.#added[0]) this.#isWhole = false;
    this.#touched.clear();
    this.#added = [];
    return requests;
  }

  #fill(chunk: Chunk<T>): Chunk<T> {
    const { keyOf, isMarked } = this.#layout;
    chunk.keys = chunk.values.map(keyOf);
    if (isMarked) chunk.marked = chunk.values.filter(isMarked).map(keyOf);
    return chunk;
  }

  async keys(): Promise<Key[]> {
    const keys: Key[] = [];
    for (let after: number | undefined = 0; after !== undefined;) {
      const chunks: Chunk<T>[] = await done(this.#store.getAll(IDBKeyRange.lowerBound(after, true), 250));
      for (const chunk of chunks) keys.push(...chunk.keys);
      after = chunks.at(-1)?.seq;
    }
    return keys;
  }

  /** How many values there are, and how many are marked. */
  async counts(): Promise<number[]> {
    return await results(['keys', 'marked'].map((name) => this.#store.index(name).count()));
  }
}

function inOrder<T>(chunks: Iterable<Chunk<T>>): Chunk<T>[] {
  return [...chunks].sort((a, b) => a.seq! - b.seq!);
}
