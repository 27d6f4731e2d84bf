import { Observable } from 'sync-ext';

/** A device's network, with a switch. All tabs share its position, also when they are loaded again. */
export class Network {
  readonly isOnline: Observable<boolean>;
  readonly #key: string;
  #open = new AbortController();

  constructor(device: string) {
    this.#key = `offline-${device}`;
    this.isOnline = new Observable(localStorage.getItem(this.#key) === null);
    addEventListener('storage', ({ key, newValue }) => {
      if (key === this.#key) this.#turn(newValue === null);
    });
  }

  readonly fetch: typeof fetch = async (input, init) => {
    if (!this.isOnline.value) throw new TypeError('offline');
    const signals = [this.#open.signal, init?.signal].filter((signal) => signal != null);
    return await fetch(input, { ...init, signal: AbortSignal.any(signals) });
  };

  switch(isOnline: boolean): void {
    if (isOnline) localStorage.removeItem(this.#key);
    else localStorage.setItem(this.#key, 'yes');
    this.#turn(isOnline);
  }

  #turn(isOnline: boolean): void {
    this.isOnline.set(isOnline);
    if (isOnline) return;
    this.#open.abort();
    this.#open = new AbortController();
  }
}
