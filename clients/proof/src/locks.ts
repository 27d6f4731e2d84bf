import type { Tab } from './browser.ts';

interface Request {
  name: string;
  tab: Tab;
  run: () => unknown;
  resolve(value: unknown): void;
  reject(error: unknown): void;
}

interface Options {
  steal?: boolean;
  signal?: AbortSignal;
}

/** Exclusive Web Locks of the tabs of one browser, as far as the client uses them. */
export class Locks {
  readonly #holders = new Map<string, Request>();
  #waiting: Request[] = [];

  /** `navigator.locks` of a tab. */
  of(tab: Tab): Pick<LockManager, 'request'> {
    const request = (name: string, options: Options | (() => unknown), run?: () => unknown) => (
      typeof options === 'function'
        ? this.#request(tab, name, {}, options)
        : this.#request(tab, name, options, run!)
    );
    return { request } as Pick<LockManager, 'request'>;
  }

  #request(tab: Tab, name: string, { steal = false, signal }: Options, run: () => unknown): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const request: Request = { name, tab, run, resolve, reject };
      if (steal) {
        const holder = this.#holders.get(name);
        this.#holders.delete(name);
        holder?.reject(new DOMException('the lock was stolen', 'AbortError'));
        this.#waiting.unshift(request);
      } else {
        this.#waiting.push(request);
        signal?.addEventListener('abort', () => {
          if (!this.#waiting.includes(request)) return;
          this.#waiting = this.#waiting.filter((other) => other !== request);
          reject(signal.reason);
        });
      }
      this.#grant(name);
    });
  }

  /** A tab is gone. */
  release(tab: Tab): void {
    this.#waiting = this.#waiting.filter((request) => request.tab !== tab);
    for (const [name, holder] of [...this.#holders]) {
      if (holder.tab !== tab) continue;
      this.#holders.delete(name);
      this.#grant(name);
    }
  }

  #grant(name: string): void {
    if (this.#holders.has(name)) return;
    const next = this.#waiting.find((request) => request.name === name);
    if (!next) return;
    this.#waiting = this.#waiting.filter((request) => request !== next);
    this.#holders.set(name, next);
    setImmediate(async () => {
      if (next.tab.isDead || this.#holders.get(name) !== next) return;
      try {
        next.resolve(await next.run());
      } catch (error) {
        next.reject(error);
      }
      if (this.#holders.get(name) !== next) return;
      this.#holders.delete(name);
      this.#grant(name);
    });
  }
}
