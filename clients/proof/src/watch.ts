/**
 * What must hold of each client at any time: looked at when a transaction of its database is
 * complete, and when it calls. It knows of the client no more than what it stores and sends.
 */
import type { Op, Payload, PushResult } from '../../typescript/src/index.ts';
import type { Change, PullReply, PushReply, SnapshotItem, SnapshotReply } from '../../typescript/src/wire.ts';
import type { Client } from './client.ts';
import { classify } from './leaving.ts';
import type { Answer, Listener, Request } from './network.ts';
import { DATABASE } from './names.ts';
import { EMPTY, type Key, type Stored, ageOf, byRecord, isInside, keyOf, news, placeOf, readStored } from './stored.ts';
import type { Tally } from './tally.ts';
import { type Known, NOTHING, type Pending, highestClock, order, same, seen } from './view.ts';

/** An op that left an outbox because the server has it, as the client thinks, and nothing else
 * shows. */
export interface Left {
  client: Client;
  op: Op;
  proof: string | null;
}

/** An own edit that is not in a snapshot that took its place. */
export interface Taken {
  client: Client;
  key: Key;
  old: Known;
  scopes: string[] | null;
  proof: string | null;
}

/** What a client was told. */
export class Told {
  last: Stored = EMPTY;
  readonly results = new Map<string, PushResult[]>();
  readonly pages: (PullReply & { asked: string | undefined })[] = [];
  readonly snapshots: SnapshotReply[] = [];
  /** By device and record, the highest revision of an own op. */
  readonly highest = new Map<string, Op['stamp']>();
  /** The lists of scopes that it has wished for. */
  readonly wished = new Set<string>();
  /** Calls since something last came of them. */
  vain = 0;
}

/** So many calls in a row of which nothing comes never end. */
const VAIN = 500;

/** What a client may be told by an error. */
const ERRORS = new Set([
  'NETWORK', 'HTTP', 'STREAM', 'LATE', '42501', '08001', '08006', '57P01', 'SX001', 'SX002', 'SX003', 'SX004', '22023', '28000', '57014',
  'AbortError', 'DatabaseClosedError', 'InvalidStateError', 'TransactionInactiveError',
]);

export class Watch implements Listener<Client> {
  readonly failures: string[] = [];
  readonly left: Left[] = [];
  readonly taken: Taken[] = [];
  /** The eras of the server's history in which a proof was given. */
  readonly eras = new Map<string, Set<number>>();
  /** The eras in which a push of an op was stored, or was a replay. */
  readonly stored = new Map<string, Set<number>>();
  readonly #told = new Map<Client, Told>();
  /** All ops that were ever in an outbox, by id, and on which wire they have been. */
  readonly #ops = new Map<string, Client>();
  readonly #wired = new Map<string, string>();
  /** What the server told of a record at a version. */
  readonly #contents = new Map<string, Payload | null>();
  /** Before or after which snapshot a call was made. */
  readonly #asked = new WeakMap<Request, string>();
  readonly #tally: Tally;
  readonly #era: () => number;
  head = 0;
  /** Writes down what passes, to find out what went wrong. */
  trace: ((text: string) => void) | undefined;

  constructor(tally: Tally, era: () => number) {
    this.#tally = tally;
    this.#era = era;
  }

  fail(client: Client, text: string): void {
    this.failures.push(`${client.user}: ${text}`);
  }

  told(client: Client): Told {
    let told = this.#told.get(client);
    if (!told) this.#told.set(client, told = new Told());
    return told;
  }

  evicted(client: Client): void {
    this.told(client).last = EMPTY;
  }

  /** Its user was told that a wish is stored. */
  promised(client: Client, list: string): void {
    if (!this.told(client).wished.has(list)) this.fail(client, `has not stored that its user wants ${list}`);
  }

  failed(client: Client, code: string, message: string): void {
    this.#tally.add(`errors ${code}`);
    if (!ERRORS.has(code)) this.fail(client, `the client says ${code}: ${message}`);
  }

  sent(client: Client, request: Request): void {
    const { name, body, path } = request;
    this.trace?.(`${client.user} > ${name} ${body ?? path}`);
    const told = this.told(client);
    const { last } = told;
    if (++told.vain === VAIN) this.fail(client, `makes ${VAIN} calls of which nothing comes, the last a ${name}`);
    if (name === 'cursor') {
      const { version } = JSON.parse(body!) as { version: number };
      if (version > Math.max(last.state!.cursor, 0) && last.state!.generation === 0) {
        this.fail(client, `acknowledges ${version} above its cursor ${last.state!.cursor}`);
      }
    }
    this.#asked.set(request, ageOf(last));
    if (name !== 'push') return;
    const ops = JSON.parse(body!) as Op[];
    this.#tally.add('pushes');
    const pending = new Map(last.pending.map((entry) => [entry.op.stamp.opId, entry]));
    const highest = new Map<Key, Op>();
    for (const op of ops) {
      const { opId } = op.stamp;
      const text = JSON.stringify(op);
      const before = this.#wired.get(opId);
      if (before !== undefined && before !== text) this.fail(client, `sends another op under the same id: ${before} and ${text}`);
      this.#wired.set(opId, text);
      if (pending.get(opId)?.sent === false) this.fail(client, `sends what is not marked as sent: ${text}`);
      const earlier = highest.get(keyOf(op));
      if (earlier && order(earlier.stamp, op.stamp) > 0 && !pending.get(earlier.stamp.opId)?.retry && !pending.get(opId)?.retry) {
        this.fail(client, `sends ${text} after ${JSON.stringify(earlier)}`);
      }
      highest.set(keyOf(op), op);
    }
  }

  answered(client: Client, { name }: Request, { status, text }: Answer): void {
    this.trace?.(`${client.user} = ${name} ${status} ${text}`);
    if (status !== 200) return;
    if (name === 'push') this.#keepResults(JSON.parse(text) as PushReply);
    if (name === 'pull') this.#keepPage(JSON.parse(text) as PullReply);
    if (name === 'snapshot') {
      const reply = JSON.parse(text) as SnapshotReply;
      this.#keepProof(reply.proof);
      for (const item of reply.items) this.#keepItem(item);
    }
  }

  #keepResults({ results, serverVersion }: PushReply): void {
    this.head = Math.max(this.head, serverVersion);
    for (const { opId, success } of results) {
      if (!success) continue;
      if (!this.stored.has(opId)) this.stored.set(opId, new Set());
      this.stored.get(opId)!.add(this.#era());
    }
  }

  #keepPage(reply: PullReply): void {
    if (!reply.requiresSnapshot) this.#keepProof(reply.proof);
    for (const change of reply.changes) this.#keepChange(change);
  }

  #keepProof(proof: string | null): void {
    if (proof === null) return;
    if (!this.eras.has(proof)) this.eras.set(proof, new Set());
    this.eras.get(proof)!.add(this.#era());
  }

  #keepChange(change: Change): void {
    if (!isTold(change) || change.op === 'leave') return;
    const { op, payload, serverVersion, stamp } = change;
    this.#contents.set(`${keyOf(change)}\0${serverVersion}\0${stamp.opId}`, op === 'delete' ? null : payload!);
  }

  #keepItem(item: SnapshotItem): void {
    const { kind, payload, serverVersion, opId, revision } = item;
    const id = `${keyOf(item)}\0${serverVersion}\0${opId ?? revision.opId}`;
    this.#contents.set(id, kind === 'row' ? payload! : null);
  }

  delivered(client: Client, request: Request, { status, text }: Answer): void {
    const { name, body } = request;
    this.trace?.(`${client.user} < ${name} ${status} ${text}`);
    const told = this.told(client);
    if (name === 'push') {
      const ops = JSON.parse(body!) as Op[];
      const results = status === 200 ? (JSON.parse(text) as PushReply).results : [];
      if (ops.length === 1 && (status === 400 || status === 413)) {
        results.push({ opId: ops[0]!.stamp.opId, success: false, errorCode: 'CONTENT' });
      }
      for (const result of results) {
        if (result.errorCode === 'CONFLICT') this.fail(client, `its op is a CONFLICT: ${result.error}`);
        this.#tally.add(result.success ? 'ops acknowledged' : `ops refused ${result.errorCode}`);
        if (!told.results.has(result.opId)) told.results.set(result.opId, []);
        told.results.get(result.opId)!.push(result);
      }
    }
    if (status !== 200) return;
    if (name === 'pull') this.#tell(told, request, JSON.parse(text) as PullReply);
    if (name === 'snapshot') told.snapshots.push(JSON.parse(text) as SnapshotReply);
    if (name !== 'push') this.#tally.add(`${name}s`);
  }

  arrived(event: string, data: string): void {
    if (event !== 'refused') this.#keepPage(JSON.parse(data) as PullReply);
  }

  event(client: Client, request: Request, event: string, data: string): void {
    this.trace?.(`${client.user} < ${event} ${data}`);
    this.#tally.add(`events ${event}`);
    if (event !== 'refused') this.#tell(this.told(client), request, JSON.parse(data) as PullReply);
  }

  #tell(told: Told, request: Request, reply: PullReply): void {
    if (reply.requiresSnapshot) this.#tally.add(`snapshots required ${reply.reason}`);
    told.pages.push({ ...reply, asked: this.#asked.get(request) });
  }

  /** A transaction of its database is complete. */
  committed(client: Client): void {
    this.#tally.add('transactions');
    const told = this.told(client);
    const was = told.last;
    const now = readStored(client);
    told.last = now;
    this.trace?.(`${client.user} stores ${JSON.stringify({ state: now.state, pending: now.pending, known: [...now.known] })}`);
    const isOther = was.state?.deviceId !== now.state?.deviceId;
    if (isOther || placeOf(was) !== placeOf(now)) told.vain = 0;
    this.#checkRows(client, now);
    this.#checkContents(client, now);
    this.#checkScopes(client, told, now);
    const before = isOther ? EMPTY : was;
    this.#checkNew(client, told, before, now);
    if (isOther) return;
    this.#checkProgress(client, told, was, now);
    this.#checkLeaving(client, told, was, now);
    for (const [id, { kind }] of now.conflicts) if (!was.conflicts.has(id)) this.#tally.add(`conflicts ${kind}`);
    if (was.state && was.state.generation !== now.state?.generation) this.#checkSwap(client, was, now);
  }

  /** The app sees what is synced with the outbox over it. */
  #checkRows(client: Client, { state, known, pending }: Stored): void {
    const byKey = byRecord(pending);
    for (const table of client.tables) {
      if (!state?.tables.includes(table)) continue;
      const rows = client.origin.read<Payload>(DATABASE, table);
      const fields = client.fieldsOf(table);
      const keys = new Set([...rows.keys()].map((pk) => keyOf({ tableName: table, pk })));
      for (const key of [...known.keys(), ...byKey.keys()]) if (key.startsWith(`${table}\0`)) keys.add(key);
      for (const key of keys) {
        const pk = key.slice(table.length + 1);
        const payload = seen(known.get(key) ?? NOTHING, byKey.get(key) ?? []);
        const row = rows.get(pk);
        if (payload === null ? row !== undefined : !isRowOf(row, payload, pk, fields)) {
          this.fail(client, `the app sees ${JSON.stringify(row)} of ${table} ${pk} instead of ${JSON.stringify(payload)}`);
        }
      }
    }
  }

  /** What is synced is what the server told. */
  #checkContents(client: Client, { known }: Stored): void {
    for (const [key, { version, newest, register, payload, left }] of known) {
      if (!register || left) continue;
      const told = this.#contents.get(`${key}\0${version}\0${newest}`);
      if (told === undefined || !same(told, payload)) {
        this.fail(client, `has ${key} at ${version} as ${JSON.stringify(payload)}, the server said ${JSON.stringify(told)}`);
      }
    }
  }

  /** It has nothing outside the scopes that it follows, and these are what its user wanted. */
  #checkScopes(client: Client, told: Told, { state, known, pending }: Stored): void {
    if (!state) return;
    const byKey = byRecord(pending);
    for (const [key, { payload, scope, left }] of known) {
      if (left && payload) this.fail(client, `has ${key}, which has left`);
      if (left && !byKey.has(key)) this.#tally.add('marks without use');
      if (!state.scopes || left) continue;
      const isOutside = payload ? !isInside(key, payload, state.scopes) : scope !== undefined && !state.scopes.includes(scope);
      if (isOutside) this.fail(client, `has ${key} ${JSON.stringify(payload)}, outside ${state.scopes}`);
    }
    const wish = JSON.stringify(state.wished);
    const first = JSON.stringify(client.setup.scopes?.toSorted() ?? null);
    if (wish !== first && !client.wishes.has(wish)) this.fail(client, `wishes for ${wish}, as nobody does`);
    told.wished.add(wish);
  }

  #checkNew(client: Client, told: Told, was: Stored, now: Stored): void {
    const before = new Set(was.pending.map(({ op }) => op.stamp.opId));
    for (const [key, entries] of byRecord(now.pending)) {
      const earlier: Pending[] = [];
      for (const entry of entries) {
        const { op: { stamp } } = entry;
        const isNew = !before.has(stamp.opId);
        if (isNew) this.#checkStamp(client, told, key, stamp, was, now);
        const clock = highestClock(now.known.get(key) ?? NOTHING, earlier);
        if (isNew && stamp.clock <= clock) this.fail(client, `makes an op of ${key} with the clock ${stamp.clock}, knowing ${clock}`);
        earlier.push(entry);
      }
    }
  }

  #checkStamp(client: Client, told: Told, key: Key, stamp: Op['stamp'], was: Stored, { state }: Stored): void {
    this.#tally.add('ops made');
    if (this.#ops.has(stamp.opId)) this.fail(client, `makes two ops with the id ${stamp.opId}`);
    this.#ops.set(stamp.opId, client);
    if (stamp.deviceId !== state?.deviceId) this.fail(client, `makes an op of the device ${stamp.deviceId}`);
    const left = was.state?.hlc;
    if (left && stamp.hlc <= left) this.fail(client, `makes an op with ${stamp.hlc}, after one with ${left} has left`);
    const mine = `${stamp.deviceId}\0${key}`;
    const highest = told.highest.get(mine);
    if (highest && order(highest, stamp) >= 0 && highest.clock <= stamp.clock) {
      this.fail(client, `makes an op of ${key} with ${stamp.hlc}, after ${highest.hlc}`);
    }
    told.highest.set(mine, stamp);
  }

  /** Between two snapshots nothing goes back, and the cursor covers what it passes. */
  #checkProgress(client: Client, told: Told, was: Stored, now: Stored): void {
    const [old, state] = [was.state, now.state];
    if (!old || !state) return;
    const isSwap = old.generation !== state.generation;
    const isReset = state.cursor === 0 && !same(old.filter, state.filter);
    if (!isSwap && !isReset) {
      if (state.cursor < old.cursor) this.fail(client, `its cursor goes back from ${old.cursor} to ${state.cursor}`);
      for (const [key, { version }] of was.known) {
        const next = now.known.get(key)?.version ?? 0;
        if (next < version && !this.#hasLeft(told, was, now, key)) this.fail(client, `${key} goes back from ${version} to ${next}`);
      }
    }
    // What was asked for before a snapshot says nothing after it.
    const pages = told.pages.filter(({ asked }) => asked === ageOf(was));
    const isWished = !same(state.scopes, state.wished);
    if (!old.snapshot && state.snapshot && !isReset && !isWished && !pages.some(({ requiresSnapshot }) => requiresSnapshot)) {
      this.fail(client, 'begins a snapshot that nobody requires');
    }
    if (isReset || (old.cursor === state.cursor && old.proof === state.proof)) return;
    if (isSwap) {
      const isPart = old.snapshot?.isPart === true;
      if (isPart) this.#checkPart(client, was, now);
      const last = told.snapshots.some(({ highWatermark, proof }) => (
        (isPart ? old.cursor : highWatermark) === state.cursor && proof === state.proof
      ));
      if (!last) this.fail(client, `takes the cursor ${state.cursor} from no snapshot`);
      return;
    }
    const page = pages.findLast(({ nextCursor, proof }) => nextCursor === state.cursor && proof === state.proof);
    if (!page) return this.fail(client, `takes the cursor ${state.cursor} from no page`);
    for (const change of page.changes.filter(isTold)) {
      const key = keyOf(change);
      const version = now.known.get(key)?.version ?? 0;
      if (this.#hasLeft(told, was, now, key)) continue;
      if (version < change.serverVersion) this.fail(client, `passes ${change.serverVersion} with ${keyOf(change)} at ${version}`);
    }
  }

  /** Whether a record is gone because it went outside: its mark stays as long as it has ops. */
  #hasLeft(told: Told, was: Stored, now: Stored, key: Key): boolean {
    if (now.known.has(key) || byRecord(now.pending).has(key)) return false;
    if (was.known.get(key)?.left) return true;
    return told.pages.some(({ asked, changes }) => (
      asked === ageOf(was) && changes.some((change) => change.op === 'leave' && keyOf(change) === key)
    ));
  }

  /** Another list of scopes leaves what both have as it was. */
  #checkPart(client: Client, was: Stored, now: Stored): void {
    this.#tally.add('lists changed');
    for (const [key, { version, payload, scope, left }] of was.known) {
      const next = now.known.get(key)?.version ?? 0;
      const stays = payload ? isInside(key, payload, now.state!.scopes) : scope === undefined && !left;
      if (stays && next < version) this.fail(client, `${key} goes back from ${version} to ${next}, though it is inside ${now.state!.scopes}`);
    }
  }

  #checkLeaving(client: Client, told: Told, was: Stored, now: Stored): void {
    const staying = new Map(now.pending.map((entry) => [entry.op.stamp.opId, entry]));
    const isReply = was.state?.answered !== now.state?.answered;
    for (const entry of was.pending) {
      const { op } = entry;
      const { opId } = op.stamp;
      const next = staying.get(opId);
      if (next) {
        const isChanged = next.op !== entry.op && !same(next.op, entry.op);
        if (isChanged && (entry.sent || this.#wired.has(opId))) this.fail(client, `changes an op that was sent: ${JSON.stringify(op)}`);
        continue;
      }
      const isWired = this.#wired.has(opId);
      const reason = classify({ entry, key: keyOf(op), isReply, isWired, was, now, results: told.results.get(opId) ?? [], isDiscarded: client.discarding.has(opId) });
      if (!reason) this.fail(client, `drops an op without a reason: ${JSON.stringify(entry)}`);
      else this.#tally.add(`ops left ${reason}`);
      if (reason === 'passed') this.left.push({ client, op, proof: now.state!.proof });
    }
  }

  /** A snapshot has taken the place of what was synced: own edits that it has not are told. */
  #checkSwap(client: Client, was: Stored, now: Stored): void {
    this.#tally.add('snapshots stored');
    const isOwn = (hlc: string) => hlc.endsWith(`:${was.state!.deviceId}`);
    for (const [key, old] of was.known) {
      const next = now.known.get(key) ?? NOTHING;
      const side = order(next.register, old.register);
      if (!isInside(key, old.payload, now.state!.scopes)) continue;
      const isTaken = (old.register && isOwn(old.register.hlc) && side < 0)
        || Object.entries(old.fields).some(([name, holder]) => isOwn(holder.hlc)
          && (side < 0 || (side === 0 && order(next.fields[name], holder) < 0)));
      if (!isTaken || same(next.payload, old.payload)) continue;
      if (news(was, now, key).some(({ kind }) => kind === 'restored')) continue;
      if (next.register) this.fail(client, `an own edit of ${key} is taken, and nobody is told`);
      // Perhaps it is a grave.
      else this.taken.push({ client, key, old, scopes: now.state!.scopes, proof: now.state!.proof });
    }
  }
}

/** Whether a change says what its record has become. */
function isTold({ applied, op, payload }: Change): boolean {
  return applied && (op === 'delete' || op === 'leave' || payload !== undefined);
}

export function isRowOf(row: Payload | undefined, payload: Payload, pk: string, fields: string[] | undefined): boolean {
  if (!row) return false;
  const shown = Object.entries(payload).filter(([name]) => !fields || fields.includes(name));
  return same(row, { ...Object.fromEntries(shown), id: pk });
}
