import type { Random } from './random.ts';
import type { Time } from './time.ts';

export interface StreamOptions {
  time: Time;
  random: Random;
  /** The version from which it goes on. */
  position: number;
  /** An event has come from the server. */
  arrived(event: string, data: string): void;
  /** An event reaches the tab. */
  deliver(event: string, data: string): void;
  ended(): void;
}

/** The gateway sends a comment after this time, so that nobody takes a stream for broken. */
const HEARTBEAT = 15_000;

/** A stream on its way through the network: late, in pieces, and until it is cut. */
export class Stream {
  readonly peer: unknown;
  readonly tab: unknown;
  readonly body: ReadableStream<Uint8Array>;
  readonly #options: StreamOptions;
  readonly #abort = new AbortController();
  #controller!: ReadableStreamDefaultController<Uint8Array>;
  #isSilent = false;
  /** When what came last reaches the tab. */
  #last = 0;
  #text = '';
  /** The newest version that the server has sent. */
  position: number;
  isOpen = true;

  constructor(peer: unknown, tab: unknown, options: StreamOptions) {
    this.peer = peer;
    this.tab = tab;
    this.#options = options;
    this.position = options.position;
    this.body = new ReadableStream({
      start: (controller) => {
        this.#controller = controller;
      },
      cancel: () => this.#end(),
    });
    this.#beat();
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  #beat(): void {
    this.#options.time.set(this, HEARTBEAT, () => {
      this.#write(':\n\n');
      this.#beat();
    });
  }

  /** Passes on what the server sends. */
  pump(body: ReadableStream<Uint8Array>): void {
    const decoder = new TextDecoder();
    const run = async () => {
      for await (const bytes of body) this.#arrive(decoder.decode(bytes, { stream: true }));
    };
    run().then(() => this.#later(() => this.close()), () => this.fail());
  }

  #arrive(text: string): void {
    this.#text += text;
    const blocks = this.#text.split('\n\n');
    this.#text = blocks.pop()!;
    for (const block of blocks) {
      const [event = '', data] = ['event', 'data'].map((name) => new RegExp(`^${name}: ?(.*)$`, 'm').exec(block)?.[1]);
      if (!data) continue;
      this.#options.arrived(event, data);
      const { nextCursor = 0 } = JSON.parse(data) as { nextCursor?: number };
      // Its workspace's part ends with anything else.
      this.position = event === 'changes' ? nextCursor : Infinity;
      this.#later(() => {
        if (!this.isOpen || this.#isSilent) return;
        this.#options.deliver(event, data);
        this.#write(`${block}\n\n`);
      });
    }
  }

  /** In the order in which it comes. */
  #later(run: () => void): void {
    const { time, random } = this.#options;
    this.#last = Math.max(this.#last, time.now + random.between(0, 30));
    time.set(this, this.#last - time.now, run);
  }

  /** In pieces, as networks do. */
  #write(text: string): void {
    if (!this.isOpen || this.#isSilent) return;
    const bytes = new TextEncoder().encode(text);
    const cut = this.#options.random.below(bytes.length);
    this.#controller.enqueue(bytes.slice(0, cut));
    this.#controller.enqueue(bytes.slice(cut));
  }

  /** Nothing comes any more, and nobody says so. */
  silence(): void {
    this.#isSilent = true;
    this.position = Infinity;
  }

  close(): void {
    if (this.isOpen && !this.#isSilent) this.#controller.close();
    this.#end();
  }

  fail(): void {
    if (this.isOpen) this.#controller.error(new TypeError('terminated'));
    this.#end();
  }

  #end(): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    this.#options.time.drop(this);
    this.#abort.abort();
    this.#options.ended();
  }
}
