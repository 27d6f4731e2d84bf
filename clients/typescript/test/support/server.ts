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
  /** null: it has none. */
  scope: string | null;
}

interface Logged {
  op: Op;
  /** Another one for each entry, also if it takes the version of a lost one. */
  serial: number;
  applied: boolean;
  payload: Payload | null;
  fields: Fields;
  overwrote?: string;
  scope: string | null;
  leftScope: string | null;
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
  /** By table. */
  scopeFields: { [table: string]: string } = {};
  scopeEpoch = 0;
  /** The head when it began: a standby below it has not heard of it. */
  epochHead = 0;
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
    const entry: Logged = { op, serial: ++this.#serial, applied: false, payload: null, fields: {}, scope: null, leftScope: null, purgedAt: Infinity };
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

  /** Step 6 of a push, and where the record is then. */
  #apply(entry: Logged, version: number): { lost: string[]; isCreated: boolean } {
    const { tableName, pk } = entry.op;
    const key = keyOf(tableName, pk);
    const before = this.records.get(key)?.scope ?? null;
    const applied = this.#merge(entry, version);
    const record = this.records.get(key);
    entry.scope = before;
    if (!entry.applied || !record) return applied;
    const field = this.scopeFields[tableName];
    if (field !== undefined && record.payload) entry.scope = String(record.payload[field] ?? '');
    if (before !== null && before !== entry.scope) entry.leftScope = before;
    record.scope = entry.scope;
    return applied;
  }

  #merge(entry: Logged, version: number): { lost: string[]; isCreated: boolean } {
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
      this.records.set(key, { register: revisionOf(op.stamp), payload: entry.payload, fields: {}, version, newest, scope: record?.scope ?? null });
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

  #proof(list: string, version = this.head): string | null {
    return version > 0 ? `${version}:${this.log[version - 1]!.serial}${list}` : null;
  }

  /** What a proof says of a list of scopes. */
  #listOf(scopes: string[] | null | undefined): string {
    return scopes ? `|${JSON.stringify([...new Set(scopes)].sort())}|${this.scopeEpoch}` : '';
  }

  #isInside(tableName: string, scope: string | null, scopes: string[] | null | undefined): boolean {
    return !scopes || (scope === null ? this.scopeFields[tableName] === undefined : scopes.includes(scope));
  }

  /** Why a proof fails; undefined if it does not. */
  #failure(cursor: number, proof: string | null, list = ''): PullReply['reason'] {
    const [version = 0, serial = 0] = proof?.split('|')[0]!.split(':').map(Number) ?? [];
    if (this.head === 0 && (cursor > 0 || proof)) return 'unknown_workspace';
    const entry = this.log[version - 1];
    if (proof && entry?.serial !== serial) return 'history_diverged';
    if (cursor > this.head) return 'cursor_ahead';
    if (cursor < this.horizon || isPurged(entry)) return 'cursor_expired';
    return proof && !proof.endsWith(`${serial}${list}`) ? 'scopes_changed' : undefined;
  }

  #pull({ cursor, proof, tables, latest, pageLimit, scopes }: any): PullReply {
    const head = this.head;
    const list = this.#listOf(scopes);
    const known = Number(proof?.split(':')[0] ?? 0);
    const empty = { changes: [], nextCursor: cursor, hasMore: false, serverVersion: head, requiresSnapshot: false, proof };
    if (this.isStandby && Math.max(cursor, known) > head) return empty;
    const reason = this.#failure(cursor, proof, list);
    if (reason) return { ...empty, requiresSnapshot: true, reason };
    const changes: Change[] = [];
    for (let version = cursor + 1; version <= head; version++) {
      const entry = this.log[version - 1]!;
      const { tableName, pk } = entry.op;
      if (isPurged(entry) || (tables && !tables.includes(tableName))) continue;
      const record = this.records.get(keyOf(tableName, pk))!;
      const isInside = this.#isInside(tableName, entry.scope, scopes);
      const isLeave = !isInside && entry.leftScope !== null && this.#isInside(tableName, entry.leftScope, scopes);
      if (!isInside && !isLeave) continue;
      if (latest && (isLeave ? this.#isInside(tableName, record.scope, scopes) : record.version !== version)) continue;
      if (changes.length === pageLimit) {
        return { ...empty, changes, nextCursor: changes.at(-1)!.serverVersion, hasMore: true, proof: this.#proof(list) };
      }
      changes.push(isLeave ? leaveOf(entry, version) : { ...changeOf(entry, version), ...(scopes && entry.scope !== null && { scope: entry.scope }) });
    }
    return { ...empty, changes, nextCursor: head, proof: this.#proof(list) };
  }

  #snapshot({ pageToken, pageLimit, tables, scopes, have, proof }: any): SnapshotReply {
    const refuse = (message: string) => {
      throw new SyncError('22023', message, { status: 400 });
    };
    const list = this.#listOf(scopes);
    const bound = JSON.stringify([tables, scopes, have]);
    if (have && !scopes) refuse('have without scopes');
    if (proof && proof.split('|')[1] !== this.#listOf(have).split('|')[1]) refuse('the proof is not one of this list');
    const token = pageToken ? JSON.parse(pageToken) : { after: '', highWatermark: this.head, proof: proof ?? this.#proof(list), bound };
    if (token.bound !== bound) refuse('invalid page_token');
    const state = Number(token.proof?.split(':')[0] ?? 0);
    if (this.isStandby && state > this.head) {
      throw new SyncError('SX002', 'standby is behind the snapshot', { status: 503 });
    }
    const isFirst = proof && !pageToken;
    const reason = token.proof && this.#failure(0, token.proof, isFirst ? this.#listOf(have) : list);
    const isExpired = (isFirst ? state : token.highWatermark) < this.horizon;
    if (isExpired || (reason && reason !== 'cursor_expired') || (isFirst && isPurged(this.log[state - 1]))) {
      throw new SyncError('SX001', 'snapshot expired', { status: 409 });
    }
    // By scope if there are some; what has none comes last.
    const placeOf = (key: Key, scope: string | null) => (scopes ? `${scope ?? '\u{10ffff}'}\0${key}` : key);
    const left = [...this.records]
      .filter(([key, { version }]) => !isPurged(this.log[version - 1]) && (!tables || tables.includes(partsOf(key).tableName)))
      .filter(([key, { scope }]) => this.#isInside(partsOf(key).tableName, scope, scopes)
        && !(have && this.#isInside(partsOf(key).tableName, scope, have)))
      .map(([key, record]) => [placeOf(key, record.scope), key, record] as const)
      .filter(([place]) => compareBytes(place, token.after) > 0)
      .sort(([a], [b]) => compareBytes(a, b));
    const page = left.slice(0, pageLimit);
    const now = this.#proof(list);
    const { highWatermark } = token;
    return {
      items: page.map(([, key, record]) => ({ ...itemOf(key, record), ...(scopes && record.scope !== null && { scope: record.scope }) })),
      highWatermark,
      nextPageToken: left.length <= pageLimit ? null : JSON.stringify({ after: page.at(-1)![0], highWatermark, proof: now, bound }),
      proof: now,
    };
  }

  /** The server as it was at a version, before all that GC did later. */
  at(version: number): FakeServer {
    const other = new FakeServer();
    const { rowOf, scopeFields, scopeEpoch } = this;
    Object.assign(other, { isStandby: true, rowOf, scopeFields, scopeEpoch });
    for (const { op, serial, purgedAt } of this.log.slice(0, version)) {
      const entry: Logged = { op, serial, applied: false, payload: null, fields: {}, scope: null, leftScope: null, purgedAt: purgedAt <= version ? purgedAt : Infinity };
      other.log.push(entry);
      other.#apply(entry, other.head);
      if (isPurged(entry) && ((op.operation === 'delete' && entry.applied) || entry.leftScope !== null)) other.horizon = other.head;
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
      if (version === i + 1 || entry.leftScope !== null) this.horizon = i + 1;
    });
  }

  /** The scopes of a table are in another field from now on. */
  setScopeField(tableName: string, field: string): void {
    this.scopeFields = { ...this.scopeFields, [tableName]: field };
    this.scopeEpoch++;
    this.epochHead = this.head;
    for (const entry of this.log) entry.leftScope = null;
    for (const [key, record] of this.records) {
      if (partsOf(key).tableName !== tableName || record.scope === null || !record.payload) continue;
      record.scope = String(record.payload[field] ?? '');
      this.log[record.version - 1]!.scope = record.scope;
    }
  }

  /** The live records of a table inside a list of scopes, by pk. */
  rows(tableName: string, scopes: string[] | null = null): { [pk: string]: Payload } {
    return Object.fromEntries([...this.records].flatMap(([key, { payload, scope }]) => (
      payload && partsOf(key).tableName === tableName && this.#isInside(tableName, scope, scopes) ? [[partsOf(key).pk, payload]] : []
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

/** A leave as a pull tells it. */
function leaveOf({ op: { tableName, pk, base, stamp } }: Logged, serverVersion: number): Change {
  return { serverVersion, tableName, pk, op: 'leave', applied: true, stamp, ...(base && { base }) };
}

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
