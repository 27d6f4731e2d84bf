/** What tabs of one store tell each other. */
export type Message =
  | { type: 'captured' }
  | { type: 'retry' }
  | { type: 'logout' }
  | { type: 'who' }
  | { type: 'leader'; isVisible: boolean; status: unknown }
  | { type: 'event'; name: string; detail: unknown };

/** How long a leader may take to answer before it counts as frozen. */
const PATIENCE = 3000;
/** How often a visible tab asks for a sign of life. */
const ROUNDS = 15_000;

export interface TabOptions {
  /** Leads until the signal. */
  lead(signal: AbortSignal): Promise<void>;
  receive(message: Message): void;
  /** What the leader tells others of its work. */
  status(): unknown;
}

/**
 * One of the tabs that share a store leads, by a Web Lock: it alone talks to the server. Another
 * one takes over when it closes or crashes, and a visible one when it is hidden or frozen. Without
 * Web Locks each tab leads, which the store allows.
 */
export class Tabs {
  readonly #name: string;
  readonly #options: TabOptions;
  readonly #channel: BroadcastChannel;
  readonly #end = new AbortController();
  /** The last request for the lock; aborted when it need not wait any more, or leads no more. */
  #turn = new AbortController();
  /** The one that leads. */
  #leading: AbortController | undefined;
  /** Once it has started, if there are any. */
  #locks: LockManager | undefined;
  #asked: ReturnType<typeof setTimeout> | undefined;
  #rounds: ReturnType<typeof setInterval> | undefined;

  constructor(name: string, options: TabOptions) {
    this.#name = `sync_ext:${name}`;
    this.#options = options;
    this.#channel = new BroadcastChannel(this.#name);
    this.#channel.onmessage = ({ data }) => this.#hear(data as Message);
  }

  get isLeader(): boolean {
    return this.#leading !== undefined;
  }

  start(): void {
    this.#locks = globalThis.navigator?.locks;
    if (!this.#locks) {
      void this.#lead(this.#turn);
      return;
    }
    this.#request(false);
    globalThis.document?.addEventListener('visibilitychange', this.#ask, { signal: this.#end.signal });
    this.#rounds = setInterval(this.#ask, ROUNDS);
    this.#ask();
  }

  stop(): void {
    this.#end.abort();
    this.#turn.abort();
    clearTimeout(this.#asked);
    clearInterval(this.#rounds);
    this.#channel.close();
  }

  send(message: Message): void {
    if (!this.#end.signal.aborted) this.#channel.postMessage(message);
  }

  #hear(message: Message): void {
    if (message.type === 'who' && this.isLeader) this.announce();
    else if (message.type === 'leader') {
      // Before the start a tab has something else to tell: why its store does not open.
      if (!this.#locks) return;
      clearTimeout(this.#asked);
      this.#asked = undefined;
      if (!message.isVisible && isVisible()) this.#request(true);
    }
    this.#options.receive(message);
  }

  /** Tells the others who leads, and how it goes. */
  announce(): void {
    this.send({ type: 'leader', isVisible: isVisible(), status: this.#options.status() });
  }

  /** A tab asks for the leader: how it goes. A visible one takes over if it does not answer. */
  readonly #ask = (): void => {
    if (this.isLeader || this.#asked !== undefined) return;
    this.send({ type: 'who' });
    if (!isVisible()) return;
    this.#asked = setTimeout(() => {
      this.#asked = undefined;
      if (isVisible()) this.#request(true);
    }, PATIENCE);
  };

  /** Leads when its turn comes, or at once by stealing the lock. */
  #request(steal: boolean): void {
    if (!this.#locks || this.isLeader || this.#end.signal.aborted) return;
    this.#turn.abort();
    const turn = new AbortController();
    this.#turn = turn;
    const options = steal ? { steal } : { signal: turn.signal };
    this.#locks.request(this.#name, options, () => this.#lead(turn)).catch(() => {
      // It gave up waiting, or the lock was stolen: wait for another turn.
      turn.abort();
      if (this.#leading === turn) this.#leading = undefined;
      if (this.#turn === turn) this.#request(false);
    });
  }

  async #lead(turn: AbortController): Promise<void> {
    if (turn.signal.aborted) return;
    this.#leading = turn;
    this.announce();
    await this.#options.lead(turn.signal);
    if (this.#leading === turn) this.#leading = undefined;
    // Stolen: what the next one has told since may have come before this one knew.
    else this.#ask();
  }
}

function isVisible(): boolean {
  return globalThis.document?.visibilityState !== 'hidden';
}
