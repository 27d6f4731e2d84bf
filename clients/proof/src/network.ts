import type { Call, Fault } from './history.ts';
import type { Tab } from './browser.ts';
import type { Random } from './random.ts';
import { Stream } from './stream.ts';
import type { Outside, Time } from './time.ts';

/** Who calls, and how its connection is. */
export interface Peer {
  user: string;
  random: Random;
  faults: Fault[];
  isOffline: boolean;
}

/** A request that a tab makes. */
export interface Request {
  name: Exclude<Call, 'any'>;
  path: string;
  body: string | undefined;
}

export interface Answer {
  status: number;
  text: string;
  retryAfter?: number;
}

/** Those who look at what passes. */
export interface Listener<P extends Peer> {
  /** A tab sends it. */
  sent(peer: P, request: Request): void;
  /** The server has answered. */
  answered(peer: P, request: Request, answer: Answer): void;
  /** The answer reaches the tab. */
  delivered(peer: P, request: Request, answer: Answer): void;
  /** The server has sent an event of a stream. */
  arrived(event: string, data: string): void;
  /** It reaches the tab. */
  event(peer: P, request: Request, event: string, data: string): void;
}

/** The newest version that a stream has brought, and should. */
export interface Following {
  head(): number;
}

const never = () => new Promise<never>(() => {});
const failure = (text: string) => new TypeError(text);
/** How long streams may take to bring what is pushed, in real milliseconds. */
const PATIENCE = 60;

/** The network between the tabs and the gateway, which loses, delays and repeats. */
export class Network<P extends Peer> implements Outside {
  readonly #listener: Listener<P>;
  readonly #following: Following;
  readonly #streams = new Set<Stream>();
  /** Requests on their way to the server are of this journey, or never arrive. */
  #journey = 0;
  #busy = 0;
  #lastHead = { head: 0, at: 0 };
  #changed: () => void = () => {};
  time!: Time;
  /** Where the gateway is, if it runs. */
  url: () => string | undefined = () => undefined;
  /** Purges all that the server has not to keep. */
  purge: () => Promise<void> = async () => {};

  constructor(listener: Listener<P>, following: Following) {
    this.#listener = listener;
    this.#following = following;
  }

  isBusy(): boolean {
    return this.#busy > 0 || this.#isBehind();
  }

  async change(): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, 2);
      this.#changed = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** Streams that have still to bring what is on the server, and may. */
  #isBehind(): boolean {
    const head = this.#following.head();
    if (head !== this.#lastHead.head) this.#lastHead = { head, at: performance.now() };
    return performance.now() - this.#lastHead.at < PATIENCE
      && [...this.#streams].some((stream) => stream.isOpen && stream.position < head);
  }

  /** Something else of the real world. */
  async outside<T>(work: Promise<T>): Promise<T> {
    this.#busy++;
    try {
      return await work;
    } finally {
      this.#busy--;
      this.#changed();
    }
  }

  /** What is on its way to the server is lost. */
  loseRequests(): void {
    this.#journey++;
  }

  cutStreams(peer: P | undefined, isSilent: boolean): void {
    for (const stream of this.#streams) {
      if (peer && stream.peer !== peer) continue;
      if (isSilent) stream.silence();
      else stream.fail();
    }
  }

  async fetch(peer: P, tab: Tab, url: string, init: RequestInit): Promise<Response> {
    if (tab.isDead) return await never();
    const path = url.replace(/^\w+:\/\/[^/]*/, '');
    const name = path.startsWith('/live') ? 'live' : path.split('/').at(-1) as Request['name'];
    const request: Request = { name, path, body: init.body as string | undefined };
    const signal = init.signal!;
    const aborted = new Promise<never>((_, reject) => {
      if (signal.aborted) reject(signal.reason);
      signal.addEventListener('abort', () => reject(signal.reason));
    });
    aborted.catch(() => {});
    // Not the tab's: what a killed tab has sent still arrives.
    const done = this.#pass(peer, tab, request, signal);
    done.catch(() => {});
    const response = await Promise.race([done, aborted]).catch((error) => {
      if (tab.isDead) return never();
      throw error;
    });
    return tab.isDead ? await never() : response;
  }

  async #pass(peer: P, tab: Tab, request: Request, signal: AbortSignal): Promise<Response> {
    const { random } = peer;
    const at = peer.faults.findIndex(({ on }) => on === request.name || on === 'any');
    const [fault] = at < 0 ? [] : peer.faults.splice(at, 1);
    const slow = (kind: Fault['kind']) => (fault?.kind === kind ? fault.delay : 0);
    const [up, down] = [random.between(0, 30) + slow('slowRequest'), random.between(0, 30) + slow('slowReply')];
    const isSentWhenAborted = random.chance(0.5);
    const journey = this.#journey;
    const lose = async () => (fault?.isSilent ? await never() : Promise.reject(failure('the connection broke')));

    this.#listener.sent(peer, request);
    await this.time.after(this, up);
    if (peer.isOffline) throw failure('offline');
    if (fault?.kind === 'unauthorized') return respond({ status: 401, text: '{}' });
    if (fault?.kind === 'unavailable') return respond({ status: 503, text: UNAVAILABLE, retryAfter: Math.ceil(fault.delay / 1000) });
    if (fault?.kind === 'badGateway') return respond({ status: 502, text: '<html>bad gateway</html>' });
    if (fault?.kind === 'lostRequest') return await lose();
    if (signal.aborted && !isSentWhenAborted) throw signal.reason;
    if (journey !== this.#journey) throw failure('the connection broke');
    if (request.name === 'live') return await this.#stream(peer, tab, request, signal);

    const answer = await this.#exchange(peer, request);
    if (fault?.kind === 'purge') await this.outside(this.purge());
    if (fault?.kind === 'twice') {
      await this.time.after(this, Math.min(fault.delay, 3000));
      if (journey === this.#journey) void this.#exchange(peer, request).catch(() => {});
    }
    await this.time.after(this, down);
    if (peer.isOffline) throw failure('offline');
    if (fault?.kind === 'lostReply') return await lose();
    if (fault?.kind === 'cut') return respond({ ...answer, text: answer.text.slice(0, answer.text.length / 2) });
    if (!signal.aborted && !tab.isDead) this.#listener.delivered(peer, request, answer);
    return respond(answer);
  }

  async #exchange(peer: P, request: Request): Promise<Answer> {
    const answer = await this.outside(this.#post(peer, request));
    this.#listener.answered(peer, request, answer);
    return answer;
  }

  async #post({ user }: P, { path, body }: Request): Promise<Answer> {
    const url = this.url();
    if (!url) throw failure('connection refused');
    const response = await fetch(url + path, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'x-user-id': user },
      ...(body && { body }),
      signal: AbortSignal.timeout(20_000),
    });
    const retryAfter = Number(response.headers.get('retry-after'));
    return { status: response.status, text: await response.text(), ...(retryAfter > 0 && { retryAfter }) };
  }

  async #stream(peer: P, tab: Tab, request: Request, signal: AbortSignal): Promise<Response> {
    const { path } = request;
    const url = this.url();
    if (!url) throw failure('connection refused');
    const stream = new Stream(peer, tab, {
      time: this.time,
      random: peer.random,
      position: Number(/cursor=(\d+)/.exec(path)?.[1] ?? 0),
      arrived: (event, data) => {
        this.#listener.arrived(event, data);
        this.#changed();
      },
      deliver: (event, data) => {
        if (!tab.isDead) this.#listener.event(peer, request, event, data);
      },
      ended: () => this.#streams.delete(stream),
    });
    const response = await this.outside(fetch(url + path, { headers: { 'x-user-id': peer.user }, signal: stream.signal }));
    if (!response.ok) return respond({ status: response.status, text: await this.outside(response.text()) });
    this.#streams.add(stream);
    signal.addEventListener('abort', () => stream.fail());
    if (signal.aborted || tab.isDead) stream.fail();
    else stream.pump(response.body!);
    return { ok: true, status: 200, headers: new Headers(), body: stream.body } as unknown as Response;
  }

  /** A tab is gone: nobody reads its streams. */
  release(tab: Tab): void {
    for (const stream of this.#streams) if (stream.tab === tab) stream.fail();
  }
}

const UNAVAILABLE = JSON.stringify({ error: { code: '08001', message: 'no connection' } });

/** As much of a response as the client reads. */
function respond({ status, text, retryAfter }: Answer): Response {
  const headers = new Headers(retryAfter ? { 'retry-after': String(retryAfter) } : {});
  return { ok: status < 300, status, headers, json: async () => JSON.parse(text) as unknown } as Response;
}
