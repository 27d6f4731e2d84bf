/**
 * The time of a history. It stands still while anything is under way, and then moves to the next
 * event: what a history does follows from its seed, as far as the server allows, and hours take
 * seconds.
 */
const setImmediateOf = globalThis.setImmediate;
let immediates = 0;

/** IndexedDB's tasks are immediates: as long as there are some, something is under way. */
globalThis.setImmediate = ((run: (...args: unknown[]) => void, ...args: unknown[]) => {
  immediates++;
  return setImmediateOf(() => {
    immediates--;
    run(...args);
  });
}) as typeof setImmediate;

/** Lets what waits for its turn run, and the real network. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setImmediateOf(resolve));
}

interface Event {
  id: number;
  at: number;
  owner: unknown;
  run: () => void;
}

/** What the real world still has to do. */
export interface Outside {
  isBusy(): boolean;
  /** Resolves when something of it is done, or may be. */
  change(): Promise<unknown>;
}

/** Turns without anything to do after which nothing is under way. */
const QUIET = 3;

export class Time {
  now = 0;
  #ids = 0;
  readonly #events = new Map<number, Event>();
  readonly #outside: Outside;

  constructor(outside: Outside) {
    this.#outside = outside;
  }

  /** Runs something after so many milliseconds, unless its owner is dropped before. */
  set(owner: unknown, delay: number, run: () => void): number {
    const id = ++this.#ids;
    // Beyond what a timer can hold, it would not come in our time either.
    if (delay < 2 ** 31) this.#events.set(id, { id, at: this.now + Math.max(0, Math.ceil(delay) || 0), owner, run });
    return id;
  }

  clear(id: number): void {
    this.#events.delete(id);
  }

  drop(owner: unknown): void {
    for (const [id, event] of this.#events) if (event.owner === owner) this.#events.delete(id);
  }

  after(owner: unknown, delay: number): Promise<void> {
    return new Promise((resolve) => this.set(owner, delay, resolve));
  }

  /** Waits until nothing is left to do at this time. */
  async settle(): Promise<void> {
    for (let quiet = 0; quiet < QUIET;) {
      await turn();
      if (immediates > 0) quiet = 0;
      else if (this.#outside.isBusy()) {
        await this.#outside.change();
        quiet = 0;
      } else quiet++;
    }
  }

  async advance(time: number): Promise<void> {
    const end = this.now + time;
    for (;;) {
      await this.settle();
      const next = this.#next();
      if (!next || next.at > end) break;
      this.now = Math.max(this.now, next.at);
      this.#events.delete(next.id);
      next.run();
    }
    this.now = end;
  }

  #next(): Event | undefined {
    let first: Event | undefined;
    for (const event of this.#events.values()) {
      if (!first || event.at < first.at || (event.at === first.at && event.id < first.id)) first = event;
    }
    return first;
  }
}
