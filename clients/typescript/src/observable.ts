/** A value that changes, and those who want to know. */
export class Observable<T> {
  #value: T;
  readonly #listeners = new Set<(value: T) => void>();

  constructor(value: T) {
    this.#value = value;
  }

  get value(): T {
    return this.#value;
  }

  set(value: T): void {
    this.#value = value;
    for (const listener of [...this.#listeners]) {
      try {
        listener(value);
      } catch (error) {
        // It must not stop the synchronization that it is told of.
        (globalThis.reportError ?? console.error)(error);
      }
    }
  }

  /** Tells of each later value. Returns what ends that. */
  subscribe(listener: (value: T) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}

/** Listeners by the name of what happens. */
export class Emitter<Events> {
  readonly #told = new Observable<{ event?: keyof Events; detail?: unknown }>({});

  on<E extends keyof Events>(event: E, listener: (detail: Events[E]) => void): () => void {
    return this.#told.subscribe((told) => {
      if (told.event === event) listener(told.detail as Events[E]);
    });
  }

  emit<E extends keyof Events>(event: E, detail: Events[E]): void {
    this.#told.set({ event, detail });
  }
}
