import { SyncError } from '../../src/error.ts';
import { isEqual } from '../../src/rules/json.ts';
import { compare, compareBytes, isSame, revisionOf } from '../../src/rules/revision.ts';
import { Server } from '../../src/server.ts';
import { type Key, keyOf, partsOf } from '../../src/store/store.ts';
import type { Change, Fields, Op, Payload, PullReply, PushReply, PushResult, Revision, SnapshotItem, SnapshotReply, Winner } from '../../src/wire.ts';

/** A record as the server has it after its newest entry. */
export interface ServerRecord {
  register: Revision;
  payload: Payload | null;
  fields: Fields;
  version: number;
  newest: string;
}

interface Logged {
  op: Op;
  /** Another one for each entry, also if it takes the version of a lost one. */
  serial: number;
  applied: boolean;
  payload: Payload | null;
  fields: Fields;
  overwrote?: string;
  /** The head when GC purged it; Infinity: it did not. */
  purgedAt: number;
}

export interface Call {
  name: string;
  body: any;
}

type Handler = (answer: () => unknown, body: any) => unknown;

const holderOf = (fields: Fields, name: string) => (Object.hasOwn(fields, name) ? fields[name] : undefined);

/** A workspace on a server: a model of what DESIGN says of push, pull, snapshot, cursor and GC,
 * which can be restored, lag behind, lose replies and refuse. */
export class FakeServer extends Server {
  log: Logged[] = [];
  records = new Map<Key, ServerRecord>();
  horizon = 0;
  readonly cursors = new Map<string, number>();
  readonly calls: Call[] = [];
  /** What was stored at any time, also what a restore has lost. */
  readonly stored: Op[] = [];
  /** What an op is refused with. */
  refuse: (op: Op) => Omit<PushResult, 'opId' | 'success'> | undefined = () => undefined;
  /** May throw what a whole call is refused with. */
  check: (call: Call) => void = () => {};
  /** The row that an own table makes of a payload. */
  rowOf: (payload: Payload) => Payload = (payload) => payload;
  /** Answers reads as long as it is there. */
  standby: FakeServer | undefined;
  isStandby = false;
  readonly #handlers: { name: string; handler: Handler }[] = [];
  #serial = 0;

  constructor() {
    super({ url: '' });
  }

  get head(): number {
    return this.log.length;
  }

  /** What the next call of that name gets in place of its answer. */
  next(name: string, handler: Handler): void {
    this.#handlers.push({ name, handler });
  }

  /** The next call of that name is done, its reply is lost. */
  loseReply(name: string): void {
    this.next(name, (answer) => {
      answer();
      throw new SyncError('NETWORK', 'no answer');
    });
  }

  /** The reply to the next call of that name waits to be let go. */
  hold(name: string): { arrived: Promise<void>; release: () => void } {
    const arrived = deferred();
    const released = deferred();
    this.next(name, async (answer) => {
      const reply = answer();
      arrived.resolve();
      await released.promise;
      return reply;
    });
    return { arrived: arrived.promise, release: () => released.resolve() };
  }

  /** Of what was to happen to later calls. */
  forget(): void {
    this.#handlers.length = 0;
  }

  named(name: string): Call[] {
    return this.calls.filter((call) => call.name === name);
  }

  override async call<T>(_workspace: string, name: string, body: unknown, signal?: AbortSignal): Promise<T> {
    if (signal?.aborted) throw new SyncError('NETWORK', 'no answer');
    const call: Call = { name, body: JSON.parse(JSON.stringify(body)) };
    this.calls.push(call);
    const at = this.#handlers.findIndex((one) => one.name === name);
    const answer = () => JSON.parse(JSON.stringify(this.#answer(call)));
    if (at < 0) return answer();
    const [{ handler }] = this.#handlers.splice(at, 1) as unknown as [{ handler: Handler }];
    return await handler(answer, call.body) as T;
  }

  #answer(call: Call): unknown {
    const { name, body } = call;
    this.check(call);
    const reader = this.standby ?? this;
    if (name === 'push') return this.push(body);
    if (name === 'pull') return reader.#pull(body);
    if (name === 'snapshot') return reader.#snapshot(body);
    if (body.version > this.head) throw new SyncError('SX003', 'version is above the head', { status: 409 });
    this.cursors.set(body.deviceId, Math.max(body.version, this.cursors.get(body.deviceId) ?? 0));
    return {};
  }

  push(ops: Op[]): PushReply {
    const told = new Set<Key>();
    const results = ops.map((op) => this.#store(op));
    results.forEach((result, i) => {
      const { tableName, pk } = ops[i]!;
      const key = keyOf(tableName, pk);
      for (const name of ['winner', 'current'] as const) {
        if (!result[name]) continue;
        const winner = this.#winner(key);
        if (!winner) delete result[name];
        else result[name] = winner;
        if (told.has(key)) delete winner?.payload;
        told.add(key);
      }
    });
    return { results, serverVersion: this.head };
  }

  #winner(key: Key): Winner | undefined {
    const record = this.records.get(key);
    if (!record) return undefined;
    const { register, payload, fields, version } = record;
    const winner: Winner = { kind: payload ? 'put' : 'delete', serverVersion: version, revision: register };
    if (payload) winner.payload = payload;
    if (Object.keys(fields).length > 0) winner.fields = fields;
    return winner;
  }

  #store(op: Op): PushResult {
    const { opId } = op.stamp;
    const key = keyOf(op.tableName, op.pk);
    const asked = {} as Winner;
    const at = this.log.findIndex((entry) => entry.op.stamp.opId === opId && entry.purgedAt === Infinity);
    if (at >= 0) {
      const entry = this.log[at]!;
      const content = ({ tableName, operation, pk, payload, base, stamp }: Op) => ({ tableName, operation, pk, payload, base, stamp }) as never;
      if (!isEqual(content(JSON.parse(JSON.stringify(entry.op))), content(op))) {
        return { opId, success: false, errorCode: 'CONFLICT', error: 'another op' };
      }
      const { register, fields } = this.records.get(key)!;
      const lost = Object.keys(op.payload ?? {}).filter((name) => !isSame(holderOf(fields, name), op.stamp));
      const applied = op.operation === 'patch' ? lost.length < Object.keys(op.payload!).length : isSame(register, op.stamp);
      return {
        opId, success: true, serverVersion: at + 1, replayed: true, applied,
        ...(op.operation === 'patch' && applied && lost.length > 0 && { lost }),
        ...(!applied && { winner: asked }),
      };
    }
    const refusal = this.refuse(op) ?? this.#refusal(op, this.records.get(key));
    if (refusal) {
      const isCondition = refusal.errorCode!.endsWith('_CONFLICT');
      return { opId, success: false, ...refusal, ...(isCondition && { current: asked }) };
    }
    const entry: Logged = { op, serial: ++this.#serial, applied: false, payload: null, fields: {}, purgedAt: Infinity };
    this.log.push(entry);
    this.stored.push(op);
    const { lost, isCreated } = this.#apply(entry, this.head);
    return {
      opId, success: true, serverVersion: this.head, applied: entry.applied,
      ...(isCreated && { created: true }),
      ...(entry.applied && entry.payload && op.operation === 'put' && !isEqual(entry.payload, op.payload!) && { payload: entry.payload }),
      ...(entry.applied && lost.length > 0 && { lost }),
      ...(entry.overwrote && { overwrote: entry.overwrote }),
      ...(!entry.applied && { winner: asked }),
    };
  }

  #refusal({ operation, base, expected }: Op, record: ServerRecord | undefined): Omit<PushResult, 'opId' | 'success'> | undefined {
    if (operation === 'patch' && (!record || compare(base, record.register) > 0)) return { errorCode: 'BASE_MISSING', error: 'no base' };
    if (typeof expected === 'string') {
      const holds = expected === 'none' ? !record?.payload : record?.newest === expected;
      return holds ? undefined : { errorCode: 'RECORD_CONFLICT', error: 'changed' };
    }
    const holds = Object.entries(expected ?? {}).every(([name, opId]) => (
      record?.payload && (holderOf(record.fields, name) ?? record.register).opId === opId
    ));
    return holds ? undefined : { errorCode: 'FIELD_CONFLICT', error: 'changed' };
  }

  /** Step 6 of a push. */
  #apply(entry: Logged, version: number): { lost: string[]; isCreated: boolean } {
    const { op } = entry;
    const key = keyOf(op.tableName, op.pk);
    const record = this.records.get(key);
    const newest = op.stamp.opId;
    let lost: string[] = [];
    if (op.operation !== 'patch') {
      entry.applied = compare(op.stamp, record?.register) > 0;
      if (!entry.applied) return { lost, isCreated: false };
      entry.payload = op.operation === 'put' ? this.rowOf(op.payload!) : null;
      if (op.parent && record && op.parent !== record.newest) entry.overwrote = record.newest;
      this.records.set(key, { register: revisionOf(op.stamp), payload: entry.payload, fields: {}, version, newest });
      return { lost, isCreated: op.operation === 'put' && !record?.payload };
    }
    if (!record?.payload || !isSame(op.base, record.register)) return { lost, isCreated: false };
    const names = Object.keys(op.payload!);
    const won = names.filter((name) => compare(op.stamp, holderOf(record.fields, name)) > 0);
    lost = names.filter((name) => !won.includes(name));
    entry.applied = won.length > 0;
    if (!entry.applied) return { lost, isCreated: false };
    const pick = <T>(of: (name: string) => T) => Object.fromEntries(won.map((name) => [name, of(name)]));
    entry.payload = { ...record.payload, ...pick((name) => op.payload![name]!) };
    entry.fields = { ...record.fields, ...pick(() => revisionOf(op.stamp)) };
    this.records.set(key, { ...record, payload: entry.payload, fields: entry.fields, version, newest });
    return { lost, isCreated: false };
  }

  #proof(version = this.head): string | null {
    return version > 0 ? `${version}:${this.log[version - 1]!.serial}` : null;
  }

  /** Why a proof fails; undefined if it does not. */
  #failure(cursor: number, proof: string | null): PullReply['reason'] {
    const [version = 0, serial = 0] = proof?.split(':').map(Number) ?? [];
    if (this.head === 0 && (cursor > 0 || proof)) return 'unknown_workspace';
    const entry = this.log[version - 1];
    if (proof && entry?.serial !== serial) return 'history_diverged';
    if (cursor > this.head) return 'cursor_ahead';
    return cursor < this.horizon || isPurged(entry) ? 'cursor_expired' : undefined;
  }

  #pull({ cursor, proof, tables, latest, pageLimit }: any): PullReply {
    const head = this.head;
    const known = Number(proof?.split(':')[0] ?? 0);
    const empty = { changes: [], nextCursor: cursor, hasMore: false, serverVersion: head, requiresSnapshot: false, proof };
    if (this.isStandby && Math.max(cursor, known) > head) return empty;
    const reason = this.#failure(cursor, proof);
    if (reason) return { ...empty, requiresSnapshot: true, reason };
    const changes: Change[] = [];
    for (let version = cursor + 1; version <= head; version++) {
      const entry = this.log[version - 1]!;
      const { tableName, pk } = entry.op;
      if (isPurged(entry) || (tables && !tables.includes(tableName))) continue;
      if (latest && this.records.get(keyOf(tableName, pk))!.version !== version) continue;
      if (changes.length === pageLimit) {
        return { ...empty, changes, nextCursor: changes.at(-1)!.serverVersion, hasMore: true, proof: this.#proof() };
      }
      changes.push(changeOf(entry, version));
    }
    return { ...empty, changes, nextCursor: head, proof: this.#proof() };
  }

  #snapshot({ pageToken, pageLimit, tables }: any): SnapshotReply {
    const token = pageToken ? JSON.parse(pageToken) : { after: '', highWatermark: this.head, proof: this.#proof() };
    const { highWatermark } = token;
    if (this.isStandby && Number(token.proof?.split(':')[0] ?? 0) > this.head) {
      throw new SyncError('SX002', 'standby is behind the snapshot', { status: 503 });
    }
    if (highWatermark < this.horizon || (token.proof && this.#failure(0, token.proof) === 'history_diverged')) {
      throw new SyncError('SX001', 'snapshot expired', { status: 409 });
    }
    const left = [...this.records]
      .filter(([key, { version }]) => !isPurged(this.log[version - 1]) && (!tables || tables.includes(partsOf(key).tableName)))
      .filter(([key]) => compareBytes(key, token.after) > 0)
      .sort(([a], [b]) => compareBytes(a, b));
    const page = left.slice(0, pageLimit);
    const proof = this.#proof();
    const isLast = left.length <= pageLimit;
    return {
      items: page.map(([key, record]) => itemOf(key, record)),
      highWatermark,
      nextPageToken: isLast ? null : JSON.stringify({ after: page.at(-1)![0], highWatermark, proof }),
      proof,
    };
  }

  /** The server as it was at a version, before all that GC did later. */
  at(version: number): FakeServer {
    const other = new FakeServer();
    Object.assign(other, { isStandby: true, rowOf: this.rowOf });
    for (const { op, serial, purgedAt } of this.log.slice(0, version)) {
      const entry: Logged = { op, serial, applied: false, payload: null, fields: {}, purgedAt: purgedAt <= version ? purgedAt : Infinity };
      other.log.push(entry);
      other.#apply(entry, other.head);
      if (isPurged(entry) && op.operation === 'delete' && entry.applied) other.horizon = other.head;
    }
    return other;
  }

  /** Loses all that came after a version. */
  restore(version: number): void {
    const { log, records, horizon } = this.at(version);
    Object.assign(this, { log, records, horizon });
    for (const [deviceId, cursor] of this.cursors) this.cursors.set(deviceId, Math.min(cursor, version));
  }

  /** GC as if no device were active: purges what is not the newest entry, and deletes. */
  gc(): void {
    this.log.slice(0, -1).forEach((entry, i) => {
      const { version, payload } = this.records.get(keyOf(entry.op.tableName, entry.op.pk))!;
      if (isPurged(entry) || (version === i + 1 && payload)) return;
      entry.purgedAt = this.head;
      if (version === i + 1) this.horizon = i + 1;
    });
  }

  /** The live records of a table by pk. */
  rows(tableName: string): { [pk: string]: Payload } {
    return Object.fromEntries([...this.records].flatMap(([key, { payload }]) => (
      payload && partsOf(key).tableName === tableName ? [[partsOf(key).pk, payload]] : []
    )));
  }
}

/** A promise, and what resolves it. */
export function deferred(): { promise: Promise<void>; resolve: () => void } {
  let resolve!: () => void;
  const promise = new Promise<void>((given) => {
    resolve = given;
  });
  return { promise, resolve };
}

const isPurged = (entry: Logged | undefined) => entry !== undefined && entry.purgedAt < Infinity;

/** A change as a pull tells it. */
export function changeOf({ op, applied, payload, fields, overwrote }: Logged, serverVersion: number): Change {
  const { tableName, pk, operation, stamp, base } = op;
  const change: Change = { serverVersion, tableName, pk, op: operation, applied, stamp };
  if (operation === 'patch') {
    change.base = base!;
    if (applied) Object.assign(change, { payload, fields });
  } else if (operation === 'put') change.payload = payload ?? op.payload!;
  if (overwrote) change.overwrote = overwrote;
  return change;
}

function itemOf(key: Key, { register, payload, fields, version, newest }: ServerRecord): SnapshotItem {
  const item: SnapshotItem = { kind: payload ? 'row' : 'tombstone', ...partsOf(key), revision: register, serverVersion: version };
  if (payload) item.payload = payload;
  if (Object.keys(fields).length > 0) Object.assign(item, { fields, opId: newest });
  return item;
}
