import type { Tab } from './browser.ts';

/** The `BroadcastChannel`s of the tabs of one browser. */
export class Channels {
  readonly #open = new Set<Channel>();

  /** `BroadcastChannel` of a tab. */
  of(tab: Tab): new (name: string) => Channel {
    const open = this.#open;
    return class extends Channel {
      constructor(name: string) {
        super(name, tab, open);
      }
    };
  }

  /** A tab is gone. */
  release(tab: Tab): void {
    for (const channel of this.#open) if (channel.tab === tab) channel.close();
  }
}

class Channel extends EventTarget {
  readonly name: string;
  readonly tab: Tab;
  readonly #others: Set<Channel>;
  onmessage: ((event: MessageEvent) => void) | null = null;

  constructor(name: string, tab: Tab, open: Set<Channel>) {
    super();
    this.name = name;
    this.tab = tab;
    this.#others = open;
    if (!tab.isDead) open.add(this);
  }

  postMessage(message: unknown): void {
    if (!this.#others.has(this)) return;
    const data: unknown = structuredClone(message);
    for (const other of this.#others) {
      if (other === this || other.name !== this.name) continue;
      setImmediate(() => {
        if (!this.#others.has(other)) return;
        const event = new MessageEvent('message', { data: structuredClone(data) });
        other.tab.enter(() => {
          other.onmessage?.(event);
          other.dispatchEvent(event);
        });
      });
    }
  }

  close(): void {
    this.#others.delete(this);
  }
}
