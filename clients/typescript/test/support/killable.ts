import type { Store, Tx } from '../../src/store/store.ts';
import { deferred } from './server.ts';

/** How a program ends at one of its transactions: before it, after it was kept and before anybody
 * knew, or not at all, but the transaction fails. */
export type Death = 'before' | 'after' | 'fails';

/** A store whose program ends at its transaction of a number. */
export class KillableStore implements Store {
  readonly #store: Store;
  #at: number;
  readonly #death: Death;
  readonly #died = deferred();
  #count = 0;

  constructor(store: Store, at: number, death: Death) {
    this.#store = store;
    this.#at = at;
    this.#death = death;
  }

  get name(): string {
    return this.#store.name;
  }

  async transaction<T>(body: (tx: Tx) => Promise<T>): Promise<T> {
    const isLast = ++this.#count === this.#at;
    if (isLast && this.#death === 'fails') {
      // It fails at its end, when all is done but not kept.
      return await this.#store.transaction(async (tx) => {
        await body(tx);
        throw new Error('the disk is full');
      });
    }
    const result = isLast && this.#death === 'before' ? undefined : await this.#store.transaction(body);
    if (!isLast) return result as T;
    this.#died.resolve();
    return await new Promise<never>(() => {});
  }

  async read<T>(body: (tx: Tx) => Promise<T>): Promise<T> {
    return await this.#store.read(body);
  }

  /** Runs to the end, or until the program does. Returns whether it came to its end; from then on
   * nothing fails. */
  async run(program: () => Promise<void>): Promise<boolean> {
    const end = program().then(() => true, (error: Error) => {
      if (error.message !== 'the disk is full') throw error;
      return false;
    });
    const isComplete = await Promise.race([end, this.#died.promise.then(() => false)]);
    this.#at = 0;
    return isComplete;
  }
}
