import { pauseAfter } from './backoff.ts';
import { SyncError } from './error.ts';
import { Server, type ServerOptions } from './server.ts';
import { readEvents } from './sse.ts';
import type { State } from './store/store.ts';
import type { PullReply } from './wire.ts';

/** A workspace that follows a stream. */
export interface Follower {
  readonly workspace: string;
  /** The tables that it wants; null: all. */
  readonly filter: string[] | null;
  /** From where the stream is to go on. */
  position(): Promise<Position>;
  /** Stores an event. Returns false if it needs more than events: it has left the stream then. */
  receive(reply: PullReply, position: Position): Promise<boolean>;
  /** The stream has ended for it alone, for good. */
  refused(error: SyncError): void;
  /** It is connected, or not any more, perhaps because of an error. */
  connected(isConnected: boolean, error?: SyncError): void;
}

export type Position = Pick<State, 'cursor' | 'proof' | 'scopes' | 'deviceId' | 'generation'>;

/** The gateway ends a stream with more. */
const WORKSPACES = 100;
/** Three of the gateway's heartbeats. */
const SILENCE = 45_000;

/** The streams of a page: one for all workspaces that are followed through one server. */
export class Live {
  readonly #server: Server;
  readonly #streams = new Set<Stream>();

  constructor(server: Server) {
    this.#server = server;
  }

  /** Returns what ends it. */
  follow(follower: Follower): () => void {
    const stream = [...this.#streams].find((stream) => stream.hasPlaceFor(follower)) ?? new Stream(this.#server);
    this.#streams.add(stream);
    stream.add(follower);
    return () => {
      if (!stream.remove(follower)) this.#streams.delete(stream);
    };
  }

  /** What waits to connect again does so now. */
  retry(): void {
    for (const stream of this.#streams) stream.retry();
  }
}

const lives: { options: ServerOptions; live: Live }[] = [];

/** One for all that name the same server in the same way. */
export function liveOf(options: ServerOptions): Live {
  const { url, headers, fetch } = options;
  let known = lives.find(({ options: other }) => other.url === url && other.headers === headers && other.fetch === fetch);
  if (!known) lives.push(known = { options, live: new Live(new Server(options)) });
  return known.live;
}

class Stream {
  readonly #server: Server;
  readonly #followers = new Map<string, Follower>();
  #connection: AbortController | undefined;
  #isPausing = false;

  constructor(server: Server) {
    this.#server = server;
  }

  hasPlaceFor({ workspace, filter }: Follower): boolean {
    const [any] = this.#followers.values();
    return this.#followers.size < WORKSPACES && !this.#followers.has(workspace)
      && String(any?.filter) === String(filter);
  }

  add(follower: Follower): void {
    this.#followers.set(follower.workspace, follower);
    this.#reopen();
  }

  /** Returns how many are left. Its place may be another one's since it has left. */
  remove(follower: Follower): number {
    if (this.#followers.get(follower.workspace) === follower) {
      this.#followers.delete(follower.workspace);
      this.#reopen();
    }
    return this.#followers.size;
  }

  retry(): void {
    if (this.#isPausing) this.#reopen();
  }

  #reopen(): void {
    this.#connection?.abort();
    const connection = new AbortController();
    this.#connection = connection;
    // Later, so that several that come together share one connection from the start.
    queueMicrotask(() => void this.#run(connection.signal));
  }

  async #run(signal: AbortSignal): Promise<void> {
    for (let failures = 0; !signal.aborted && this.#followers.size > 0;) {
      let error: SyncError | undefined;
      try {
        await this.#read(signal, () => {
          failures = 0;
          this.#tell(true);
        });
      } catch (cause) {
        error = cause instanceof SyncError ? cause : new SyncError('STREAM', 'the stream failed', { cause });
      }
      if (signal.aborted) return;
      failures++;
      this.#tell(false, error);
      this.#isPausing = true;
      await sleep(pauseAfter(failures, error?.retryAfter), signal);
      this.#isPausing = false;
    }
  }

  #tell(isConnected: boolean, error?: SyncError): void {
    for (const follower of this.#followers.values()) follower.connected(isConnected, error);
  }

  async #read(signal: AbortSignal, onOpen: () => void): Promise<void> {
    const followers = [...this.#followers.values()];
    const positions = new Map<string, Position>();
    const query = new URLSearchParams();
    for (const follower of followers) {
      const position = await follower.position();
      positions.set(follower.workspace, position);
      query.append('workspace', follower.workspace);
      query.append('cursor', String(position.cursor));
      if (position.proof) query.append('proof', position.proof);
      if (position.scopes) query.append('scopes', JSON.stringify(position.scopes));
    }
    for (const table of followers[0]!.filter ?? []) query.append('tables', table);
    query.append('latest', 'true');
    const events = readEvents(await this.#server.stream(query, signal), SILENCE);
    onOpen();
    for await (const { event, data } of events) {
      const { workspaceId, ...reply } = JSON.parse(data) as PullReply & { workspaceId: string; error?: SyncError };
      const follower = this.#followers.get(workspaceId);
      if (signal.aborted) return;
      if (event === 'refused') {
        const { code, message } = reply.error!;
        this.#followers.delete(workspaceId);
        follower?.refused(new SyncError(code, message, { status: 403 }));
      } else if (!await follower?.receive(reply, positions.get(workspaceId)!)) {
        this.#followers.delete(workspaceId);
      }
      if (this.#followers.size === 0) return;
    }
  }
}

/** Waits so many milliseconds, or for the signal. */
export async function sleep(time: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted || time <= 0) return;
  await new Promise<void>((resolve) => {
    const timer = time < Infinity ? setTimeout(end, time) : undefined;
    function end() {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
      resolve();
    }
    signal.addEventListener('abort', end);
  });
}
