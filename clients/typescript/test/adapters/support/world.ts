import { Cluster, type Gateway } from '../../../../support/cluster.ts';
import type { Json, Op, Payload } from '../../../src/wire.ts';

/** The real server: Postgres with the extension, and a gateway that trusts its callers. */
export class World {
  readonly #cluster: Cluster;
  readonly #database: string;
  readonly gateway: Gateway;

  private constructor(cluster: Cluster, database: string, gateway: Gateway) {
    this.#cluster = cluster;
    this.#database = database;
    this.gateway = gateway;
  }

  static async start(sql: string): Promise<World> {
    const cluster = await Cluster.start();
    const database = await cluster.createDatabase(sql);
    const gateway = await cluster.startGateway(database, { env: { GATEWAY_TRUSTED: 'on' } });
    return new World(cluster, database, gateway);
  }

  async stop(): Promise<void> {
    await this.#cluster.stop();
  }

  async sql(text: string): Promise<string> {
    return await this.#cluster.sql(this.#database, text);
  }

  /** What the server has: payloads by pk. */
  async records(workspace: string, table = 'todos'): Promise<Record<string, Payload>> {
    const rows = await this.sql(`
      select coalesce(json_object_agg(pk, payload), '{}') from sync_ext.current_record
       where workspace_id = '${workspace}' and table_name = '${table}' and not deleted`);
    return JSON.parse(rows) as Record<string, Payload>;
  }

  /** The ops that were stored, in their order: pk, operation and the member `title`. */
  async log(workspace: string): Promise<string[]> {
    return (await this.sql(`
      select pk || ' ' || operation || coalesce(' ' || (payload ->> 'title'), '')
        from sync_ext.change_log join sync_ext.workspace using (workspace_key)
       where workspace_id = '${workspace}' order by server_version`)).split('\n').filter(Boolean);
  }

  async push(workspace: string, ...ops: Op[]): Promise<Json> {
    return await this.#post(workspace, 'push', ops);
  }

  async #post(workspace: string, name: string, body: unknown): Promise<Json> {
    const init = { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) };
    const response = await fetch(`${this.gateway.url}/workspaces/${workspace}/${name}`, init);
    if (!response.ok) throw new Error(await response.text());
    return await response.json() as Json;
  }

  /** Purges all that can be, also what devices have not seen. */
  async purge(workspace: string): Promise<void> {
    await this.sql(`
      delete from sync_ext.device_cursor;
      update sync_ext.change_log set created_at = created_at - interval '40 days';
      select sync_gc('${workspace}');`);
  }
}

/** The network of one client. */
export class Line {
  /** What was asked, as `push`, `pull`, and the body. */
  readonly requests: { name: string; body: any }[] = [];
  /** Those of all requests that are not answered. */
  readonly signals = new Set<AbortSignal>();
  /** Open ones. */
  streams = 0;
  /** Milliseconds that an answer takes beside what the server needs. */
  latency: () => number = () => 0;
  /** Whether calls are answered as the gateway does while the workspace is between two servers. */
  isElsewhere = false;
  #isDown = false;
  #cut = new AbortController();
  readonly #losses: { name: string; isEnd: boolean }[] = [];
  readonly #changes = new Map<string, (reply: any) => unknown>();
  readonly #holds = new Map<string, Promise<void>>();

  readonly fetch: typeof fetch = async (input, init = {}) => {
    const { pathname } = new URL(String(input));
    const name = pathname.slice(pathname.lastIndexOf('/') + 1);
    if (this.#isDown) throw new TypeError('offline');
    if (name !== 'live') this.requests.push({ name, body: JSON.parse(String(init.body)) });
    if (name !== 'live' && this.isElsewhere) {
      const error = { code: 'SX004', message: 'workspace is elsewhere', detail: null, hint: null };
      return Response.json({ error }, { status: 503, headers: { 'retry-after': '1' } });
    }
    const signal = AbortSignal.any([this.#cut.signal, ...(init.signal ? [init.signal] : [])]);
    this.signals.add(signal);
    const response = await fetch(input, { ...init, signal });
    if (name === 'live') {
      this.streams++;
      signal.addEventListener('abort', () => { this.streams--; });
    }
    await this.#holds.get(name);
    if (this.latency() > 0) await new Promise((resolve) => { setTimeout(resolve, this.latency()); });
    this.signals.delete(signal);
    const loss = this.#losses.find((other) => other.name === name);
    if (loss) {
      this.#losses.splice(this.#losses.indexOf(loss), 1);
      await response.text();
      if (loss.isEnd) this.down();
      throw new TypeError('the answer was lost');
    }
    const change = this.#changes.get(name);
    if (!change || !response.ok) return response;
    this.#changes.delete(name);
    return Response.json(change(await response.json()));
  };

  /** The next answer to such a request does not arrive, and perhaps nothing after it. */
  loseAnswer(name: string, isEnd = false): void {
    this.#losses.push({ name, isEnd });
  }

  /** So many answers to such requests arrive, then nothing. */
  loseAfter(name: string, number: number): void {
    this.#changes.set(name, (reply) => {
      if (number-- > 1) this.loseAfter(name, number);
      else this.loseAnswer(name, true);
      return reply;
    });
  }

  /** The next answer to such a request is another one. */
  changeAnswer(name: string, change: (reply: any) => unknown): void {
    this.#changes.set(name, change);
  }

  /** Answers to such requests do not arrive until the function that is returned is called. */
  hold(name: string): () => void {
    const { promise, resolve } = withResolvers();
    this.#holds.set(name, promise);
    return () => {
      this.#holds.delete(name);
      resolve();
    };
  }

  /** No more accidents. */
  forget(): void {
    this.#losses.length = 0;
  }

  down(): void {
    this.#isDown = true;
    this.#cut.abort();
  }

  up(): void {
    this.#isDown = false;
    this.#cut = new AbortController();
  }

  count(name: string): number {
    return this.requests.filter((request) => request.name === name).length;
  }

  /** The ops of all pushes. */
  get ops(): Op[] {
    return this.requests.filter(({ name }) => name === 'push').flatMap(({ body }) => body as Op[]);
  }
}

let ops = 0;

/** An op of another device, whose revisions are in the order of their clocks. */
export function op(pk: string, operation: Op['operation'], payload: Payload | undefined, clock: number, more: Partial<Op> = {}): Op {
  const opId = `00000000-0000-4000-8000-${String(++ops).padStart(12, '0')}`;
  const stamp = { clock, hlc: `${clock}:other`, opId, deviceId: 'other' };
  return { tableName: 'todos', operation, pk, ...(payload && { payload }), stamp, ...more };
}

let names = 0;

/** One that no other test has. */
export function newName(prefix: string): string {
  return `${prefix}${process.pid}_${++names}`;
}

export function withResolvers(): { promise: Promise<void>; resolve: () => void } {
  let resolve!: () => void;
  const promise = new Promise<void>((done) => { resolve = done; });
  return { promise, resolve };
}
