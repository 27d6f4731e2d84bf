import { once } from 'node:events';
import { Agent, type IncomingMessage, type Server, type ServerResponse, createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { pipeline } from 'node:stream';

/** A request that a page has made of the gateway. */
export interface Made {
  user: string;
  /** Such as `/workspaces/team/push`. */
  path: string;
  body: string;
  /** How many pieces of an answer have come. */
  pieces: number;
}

export interface Held {
  /** The gateway has answered the request. */
  readonly answered: Promise<Made>;
  /** Lets the answer go on. */
  release(): void;
}

interface Hold extends Held {
  matches(made: Made): boolean;
  answer(made: Made): void;
  readonly released: Promise<void>;
}

/** Stands between the browsers and a gateway: serves the tests' pages, passes on what is below
 * `/sync`, remembers it, and can hold a request or cut a user off. */
export class Front {
  /** All requests to the gateway, also those that were cut. */
  readonly requests: Made[] = [];
  readonly #gateway: URL;
  readonly #pages: ReadonlyMap<string, string>;
  readonly #server: Server;
  readonly #agent = new Agent({ keepAlive: true });
  readonly #open = new Map<ServerResponse, Made>();
  readonly #cut = new Set<string>();
  readonly #holds = new Set<Hold>();

  private constructor(gateway: string, pages: ReadonlyMap<string, string>) {
    this.#gateway = new URL(gateway);
    this.#pages = pages;
    this.#server = createServer((incoming, response) => {
      this.#serve(incoming, response).catch(() => response.destroy());
    });
  }

  /** Pages are HTML or scripts, by their path. */
  static async start(gateway: string, pages: ReadonlyMap<string, string>): Promise<Front> {
    const front = new Front(gateway, pages);
    front.#server.listen(0, '127.0.0.1');
    await once(front.#server, 'listening');
    return front;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Breaks the user's open connections to the gateway, and refuses new ones. */
  cut(user: string): void {
    this.#cut.add(user);
    for (const [response, made] of this.#open) {
      if (made.user === user) response.destroy();
    }
  }

  mend(user: string): void {
    this.#cut.delete(user);
  }

  /** Holds the answer to the next request of a user to one path, by its last part, that matches. */
  hold(user: string, name: string, isMeant: (made: Made) => boolean = () => true): Held {
    const [answered, answer] = later<Made>();
    const [released, release] = later<void>();
    const matches = (made: Made) => made.user === user && made.path.endsWith(`/${name}`) && isMeant(made);
    this.#holds.add({ matches, answered, answer, released, release });
    return { answered, release };
  }

  /** The requests of a workspace that were made to one path, by its last part. */
  made(workspace: string, name: string): Made[] {
    return this.requests.filter(({ path }) => path === `/workspaces/${workspace}/${name}`);
  }

  /** The streams of a user that are open now. */
  streams(user: string): number {
    return [...this.#open.values()].filter((made) => made.user === user && made.path === '/live').length;
  }

  async stop(): Promise<void> {
    this.#server.close();
    this.#server.closeAllConnections();
    this.#agent.destroy();
    await once(this.#server, 'close');
  }

  async #serve(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    const { pathname, search } = new URL(incoming.url!, this.url);
    if (!pathname.startsWith('/sync/')) return this.#servePage(pathname, response);
    const made = {
      user: String(incoming.headers['x-user-id'] ?? ''),
      path: pathname.slice('/sync'.length),
      body: Buffer.concat(await incoming.toArray() as Buffer[]).toString(),
      pieces: 0,
    };
    this.requests.push(made);
    // It may be closed already, and tells that once.
    if (response.destroyed) return;
    this.#open.set(response, made);
    response.once('close', () => this.#open.delete(response));
    if (this.#cut.has(made.user)) response.destroy();
    else this.#pass(incoming, made, search, response);
  }

  #servePage(path: string, response: ServerResponse): void {
    const text = this.#pages.get(path);
    const type = path.endsWith('.js') ? 'text/javascript' : 'text/html';
    response.writeHead(text === undefined ? 404 : 200, { 'content-type': `${type}; charset=utf-8` });
    response.end(text);
  }

  #pass({ method, headers }: IncomingMessage, made: Made, search: string, response: ServerResponse): void {
    const { hostname, port, host } = this.#gateway;
    const passed = request({
      agent: this.#agent,
      hostname,
      port,
      method,
      path: made.path + search,
      headers: { ...headers, host },
    });
    const hold = [...this.#holds].find((hold) => hold.matches(made));
    if (hold) this.#holds.delete(hold);
    passed.once('response', async (answer) => {
      hold?.answer(made);
      await hold?.released;
      if (response.destroyed) return;
      answer.on('data', () => made.pieces++);
      response.writeHead(answer.statusCode!, answer.headers);
      response.flushHeaders();
      pipeline(answer, response, () => {});
    });
    passed.once('error', () => response.destroy());
    response.once('close', () => passed.destroy());
    passed.end(made.body);
  }
}

function later<T>(): [Promise<T>, (value: T) => void] {
  let resolve!: (value: T) => void;
  return [new Promise<T>((settle) => (resolve = settle)), resolve];
}
