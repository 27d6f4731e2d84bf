/**
 * The app's client, as far as it decides whether devices converge: what it makes of an edit,
 * of the results of a push and of pulled changes. Written from the observed behaviour of two
 * generations.
 *
 * - `newer` compares whole revisions, also with deletes, and takes the winner of a lost op.
 * - `older` knows no revision of what it wrote itself, only the clock, and takes every pulled
 *   change for state. (It also hides a put of the same clock as a delete. That parts it from
 *   the others whatever a server does, so it is left out here.)
 */
import type { PendingOp, PullResponse, PushResult, SyncChange, SyncScope } from '../../src/host.ts';

export interface Transport {
  push(batch: { scope: SyncScope; ops: PendingOp[] }): Promise<PushResult>;
  pull(request: { scope: SyncScope; cursor: number; limit: number }): Promise<PullResponse>;
  updateCursor(scope: SyncScope, deviceId: string, version: number): Promise<void>;
}

interface Revision {
  clock: number;
  hlc: string;
  opId: string;
}

/** A record, with NULL for the payload of a deleted one. */
interface Row extends Revision {
  payload: Record<string, unknown> | null;
}

/** The accidents of one round. */
export interface Round {
  limit: number;
  pushReplyIsLost?: boolean;
  pullReplyIsLost?: boolean;
  isSilent?: boolean;
}

export interface ClientOptions {
  generation: 'older' | 'newer';
  deviceId: string;
  scope: SyncScope;
  transport: Transport;
  uuid: () => string;
  /** In milliseconds. */
  now: () => number;
}

export class Or3Client {
  readonly rows = new Map<string, Row>();
  cursor = 0;
  outbox: PendingOp[] = [];
  readonly #deletes = new Map<string, Revision>();
  readonly #recent = new Set<string>();
  readonly #options: ClientOptions;

  constructor(options: ClientOptions) {
    this.#options = options;
  }

  /** The keys of what the user sees. */
  live(): string[] {
    return [...this.rows].flatMap(([key, { payload }]) => (payload ? [key] : []));
  }

  state(): Map<string, unknown> {
    return new Map(this.live().map((key) => [key, this.rows.get(key)!.payload]));
  }

  edit(tableName: string, pk: string, payload: Record<string, unknown> | null): void {
    const key = `${tableName}/${pk}`;
    const { generation, deviceId, now, uuid } = this.#options;
    const known = [this.rows.get(key)?.clock ?? 0, this.#deletes.get(key)?.clock ?? 0];
    const hlc = `${String(now()).padStart(13, '0')}:0000:${deviceId}`;
    const stamp = { deviceId, opId: uuid(), hlc, clock: Math.max(...known) + 1 };
    const own = generation === 'newer' ? stamp : { clock: stamp.clock, hlc: '', opId: '' };
    this.rows.set(key, { ...own, payload });
    this.#recent.add(stamp.opId);
    this.outbox.push({
      tableName,
      operation: payload ? 'put' : 'delete',
      pk,
      ...(payload && { payload }),
      stamp,
    });
  }

  async sync(round: Round): Promise<void> {
    while (this.outbox.length > 0) {
      // The rest waits for the next round, also the pull.
      if (!(await this.#push(round))) return;
    }
    await this.#pull(round);
  }

  async #push(round: Round): Promise<boolean> {
    const { scope, transport } = this.#options;
    const latest = new Map(this.outbox.map((op) => [`${op.tableName}/${op.pk}`, op]));
    this.outbox = [...latest.values()];
    const ops = this.outbox.slice(0, 5);
    const { results } = await transport.push({ scope, ops });
    if (round.pushReplyIsLost) return false;
    ops.forEach((op, i) => {
      const { success, applied, winner, error } = results[i]!;
      if (!success) throw new Error(`refused: ${error}`);
      this.outbox = this.outbox.filter(({ stamp }) => stamp.opId !== op.stamp.opId);
      if (applied || !winner || this.#options.generation === 'older') return;
      const { tableName, pk } = op;
      const payload = winner.kind === 'put' ? winner.payload : undefined;
      const stamp = { ...winner.revision, deviceId: 'winner' };
      this.#apply({ serverVersion: 0, tableName, pk, op: winner.kind, payload, stamp });
    });
    return true;
  }

  async #pull(round: Round): Promise<void> {
    const { scope, transport, deviceId } = this.#options;
    let hasMore = true;
    while (hasMore) {
      const { cursor } = this;
      const page = await transport.pull({ scope, cursor, limit: round.limit });
      if (round.pullReplyIsLost) return;
      if (page.requiresSnapshot) throw new Error('a snapshot is required');
      for (const change of page.changes) {
        if (!this.#recent.has(change.stamp.opId)) this.#apply(change);
      }
      this.cursor = page.nextCursor;
      hasMore = page.hasMore;
    }
    if (!round.isSilent) await transport.updateCursor(scope, deviceId, this.cursor);
  }

  #apply({ tableName, pk, op, payload, stamp }: SyncChange): void {
    const key = `${tableName}/${pk}`;
    const { clock, hlc, opId } = stamp;
    const incoming = { clock, hlc, opId };
    const [row, deleted] = [this.rows.get(key), this.#deletes.get(key)];
    if (op === 'delete') {
      if (this.#isAbove(incoming, deleted)) this.#deletes.set(key, incoming);
      if (row && this.#isAbove(incoming, row)) this.rows.set(key, { ...incoming, payload: null });
      return;
    }
    const isHidden = deleted && !this.#isAbove(incoming, deleted);
    if (isHidden || !this.#isAbove(incoming, row)) return;
    this.#deletes.delete(key);
    this.rows.set(key, { ...incoming, payload: payload as Record<string, unknown> });
  }

  #isAbove(a: Revision, b: Revision | undefined): boolean {
    if (!b) return true;
    if (a.clock !== b.clock) return a.clock > b.clock;
    if (a.hlc !== b.hlc) return a.hlc > b.hlc;
    return this.#options.generation === 'newer' && a.opId > b.opId;
  }
}
