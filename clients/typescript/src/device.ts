import { SyncError, remedyOf } from './error.ts';
import { answer, apply, type Finding, settle } from './rules/answer.ts';
import { Clock, newId } from './rules/author.ts';
import { type EditRules, edit } from './rules/edit.ts';
import { STORED_AT_ONCE, groupBy, inParts } from './rules/group.ts';
import { isEqual, toPayload } from './rules/json.ts';
import { type Entry, see } from './rules/view.ts';
import type { Server } from './server.ts';
import { type Changed, type Conflict, type Key, type Known, NOTHING, type Part, type State, type Store, type Tx, keyOf, partsOf } from './store/store.ts';
import type { Op, Payload, PullReply, PushReply, PushResult } from './wire.ts';

/** What a device tells of its work. */
export interface DeviceEvents {
  captured: { ops: Op[] };
  push: { ops: Op[] };
  pushed: { ops: Op[]; results: PushResult[] };
  /** Changes are stored, of others and own ones that came back; up to which version, and how far
   * the server is. */
  pulled: { changes: number; cursor: number; head: number };
  conflict: Conflict;
  /** Of a snapshot: how many records have arrived, and how many of them the app sees. */
  progress: { received: number; stored: number; isOver: boolean };
  /** Other scopes are followed now. */
  scopes: Scopes;
}

/** The scopes that are followed, and those that are to be; null: all. */
export interface Scopes {
  followed: string[] | null;
  wished: string[] | null;
}

export interface DeviceOptions {
  workspace: string;
  user: string | null;
  filter: string[] | null;
  /** Of the first start. */
  scopes: string[] | null;
  /** The tables that the app sees, and which of their fields. */
  fields: State['fields'];
  rulesOf(tableName: string): EditRules;
  tell<E extends keyof DeviceEvents>(event: E, detail: DeviceEvents[E]): void;
  now(): number;
  /** The maximum number of ops a push, and of items a page. */
  pushLimit: number;
  pageLimit: number;
}

/** A push is cut where its ops would be larger. */
const PUSH_LENGTH = 1_000_000;
/** An idle device acknowledges after this time, so that it counts as active. */
const HEARTBEAT = 12 * 3600 * 1000;

/**
 * One workspace on one device: the algorithm of the client guide, in steps that leave the store
 * right wherever they are interrupted, and whoever else takes them on the same store. Each call
 * takes a number in the store before it is made; its reply counts only while no later call has
 * been answered.
 */
export class Device {
  readonly #store: Store;
  readonly #server: Server;
  readonly options: DeviceOptions;
  /** Halved while a reply is too large. */
  #pageLimit: number;
  /** Of the state that was opened. */
  #deviceId: string | undefined;
  #clock: Clock | undefined;
  /** There is more to do: what was answered is pushed again, or other scopes are wished for. */
  hasMore = false;

  constructor(store: Store, server: Server, options: DeviceOptions) {
    this.#store = store;
    this.#server = server;
    this.options = options;
    this.#pageLimit = options.pageLimit;
  }

  /** Makes the device, or meets the one that the store has. Rows that were there before become
   * ops, records that the app did not know become visible. */
  async open(): Promise<State> {
    const { workspace, user, filter, fields } = this.options;
    const tables = Object.keys(fields);
    return await this.#store.transaction(async (tx) => {
      const old = await tx.state();
      const state = !old || old.isClosed ? this.#newState(!!old) : old;
      if (state.workspace !== workspace) {
        throw new SyncError('OTHER_WORKSPACE', `the store holds the workspace ${state.workspace}`);
      }
      if (state.user !== user) throw new SyncError('OTHER_USER', 'the store holds another user');
      this.#deviceId = state.deviceId;
      const before = state.fields;
      const added = tables.filter((table) => !state.tables.includes(table));
      const shown = tables.filter((table) => added.includes(table) || String(fields[table]) !== String(before[table]));
      const isOther = !isEqual(filter, state.filter);
      if (isOther || state.tables.some((table) => !tables.includes(table))) {
        // Another filter begins anew; and of records that were shown, the store may have had
        // nothing but the rows.
        await tx.unstage();
        Object.assign(state, { filter, snapshot: NOTHING, answered: ++state.calls });
        if (isOther) Object.assign(state, { cursor: 0, proof: null });
      }
      Object.assign(state, { tables, fields: { ...before, ...fields } });
      await tx.setState(state);
      for (const { op } of await tx.outbox()) this.author(state).observe(op.stamp.hlc);
      for (const table of added) await this.#recordRows(tx, state, table, Object.hasOwn(before, table));
      const keys = (await tx.syncedKeys()).filter((key) => shown.includes(partsOf(key).tableName));
      for (const some of inParts(keys)) await tx.show(some);
      return state;
    });
  }

  /** The state, made if there is none: before the first start, or if the browser has thrown the
   * records away. Then another tab may have been first. */
  async state(tx: Tx, state?: State): Promise<State> {
    const { workspace, user, fields } = this.options;
    state ??= await tx.state();
    if (state && this.#deviceId) {
      const isOther = state.deviceId !== this.#deviceId
        && (state.isNext || state.workspace !== workspace || state.user !== user);
      if (state.isClosed || isOther) throw new SyncError('LOGGED_OUT', 'logged out');
      this.#deviceId = state.deviceId;
    }
    if (state && !state.isClosed) return state;
    const made = this.#newState();
    if (this.#deviceId) {
      this.#deviceId = made.deviceId;
      // No rows are left that could be edits.
      Object.assign(made, { tables: Object.keys(fields), fields });
    }
    return made;
  }

  #newState(isNext = false): State {
    const { workspace, user, filter, scopes } = this.options;
    return {
      workspace,
      user,
      deviceId: newId(this.options.now()),
      filter,
      scopes,
      wished: scopes,
      tables: [],
      fields: {},
      cursor: 0,
      proof: null,
      isComplete: false,
      acknowledged: { version: 0, at: 0 },
      hlc: null,
      calls: 0,
      answered: 0,
      generation: 0,
      snapshot: null,
      historyLost: false,
      isNext,
    };
  }

  /** Makes ops of a table's rows. Those of records that are known are no edits if the app has seen
   * the table before: then they are what it saw. */
  async #recordRows(tx: Tx, state: State, tableName: string, isOld: boolean): Promise<void> {
    for (let after: string | null = null; ;) {
      const rows = await tx.rows(tableName, after, STORED_AT_ONCE);
      if (rows.length === 0) break;
      const values = new Map<Key, Payload>();
      for (const { pk, value } of rows) {
        try {
          values.set(keyOf(tableName, pk), toPayload(value));
        } catch (error) {
          const message = (error as Error).message;
          const finding: Finding = { kind: 'refused', mine: null, error: { code: 'INVALID_RECORD', message } };
          await this.find(tx, keyOf(tableName, pk), keyOf(tableName, pk), finding);
        }
      }
      const known = await tx.known([...values.keys()]);
      await this.record(tx, state, isOld ? known.filter(({ synced, entries }) => !synced && !entries[0]) : known, values);
      after = rows.at(-1)!.pk;
    }
  }

  /** Makes ops of what records become, null for deleted. */
  async record(tx: Tx, state: State, known: Known[], values: ReadonlyMap<Key, Payload | null>): Promise<void> {
    const changes: Changed[] = [];
    const ops: Op[] = [];
    const author = this.author(state);
    for (const was of known) {
      const parts = partsOf(was.key);
      const rules = this.options.rulesOf(parts.tableName);
      const edited = edit(parts, values.get(was.key)!, was.synced, was.entries, rules, author);
      if (!edited) continue;
      const entries = was.entries.filter((entry) => !edited.dropped.includes(entry));
      if (edited.added) {
        entries.push(edited.added);
        ops.push(edited.added.op);
      }
      changes.push({ was, entries });
    }
    if (changes.length === 0) return;
    await tx.save(changes);
    this.options.tell('captured', { ops });
  }

  author({ deviceId, hlc }: State): Clock {
    if (this.#clock?.deviceId !== deviceId) this.#clock = new Clock(deviceId, null, this.options.now);
    if (hlc) this.#clock.observe(hlc);
    return this.#clock;
  }

  /** Pushes what waits now, each op once, and what is made again of it. */
  async push(signal: AbortSignal): Promise<void> {
    const tried = new Set<string>();
    for (let isMore = true; isMore;) {
      let ops: Op[] = [];
      const call = await this.change(async (tx, state) => {
        this.hasMore = !isEqual(state.scopes, state.wished);
        if (state.snapshot) return false;
        const ready = inTurn(await tx.outbox()).filter(({ stamp }) => !tried.has(stamp.opId));
        ops = cut(ready, this.options.pushLimit);
        isMore = ops.length < ready.length;
        await tx.markSent(ops);
        state.calls++;
        return ops.length > 0;
      }, ['state', 'outbox']);
      for (const { stamp } of ops) tried.add(stamp.opId);
      if (call.snapshot) await this.#finishSnapshot(signal);
      else if (ops.length > 0) isMore = await this.#send(ops, signal, call) || isMore;
    }
  }

  /** Returns whether ops were made again. */
  async #send(ops: Op[], signal: AbortSignal, begun?: State): Promise<boolean> {
    this.options.tell('push', { ops });
    let results: PushResult[];
    const call = begun ?? await this.begin();
    try {
      const reply = await this.#server.call<PushReply>(this.options.workspace, 'push', ops, signal);
      results = reply.results;
      if (results?.length !== ops.length) throw new SyncError('MALFORMED', 'no reply to this push');
    } catch (error) {
      if (remedyOf(error) !== 'content') throw error;
      if (ops.length > 1) {
        const half = Math.ceil(ops.length / 2);
        const isAgain = await this.#send(ops.slice(0, half), signal);
        return await this.#send(ops.slice(half), signal) || isAgain;
      }
      const { code, message, detail } = error as SyncError;
      const text = detail ? `${message}: ${detail}` : message;
      results = [{ opId: ops[0]!.stamp.opId, success: false, errorCode: code, error: text }];
    }
    let isAgain = false;
    await this.answered(call, async (tx, state) => {
      const changes = await this.#settleResults(tx, state, ops, results);
      isAgain = changes.some(({ entries }) => entries!.some(({ sent }) => !sent));
    });
    this.options.tell('pushed', { ops, results });
    return isAgain;
  }

  async #settleResults(tx: Tx, state: State, ops: Op[], results: PushResult[]): Promise<Changed[]> {
    const byKey = groupBy(ops.map((op, i) => ({ op, result: results[i]! })), keyOfEntry);
    const author = this.author(state);
    const changes: Changed[] = [];
    for (const was of await tx.known([...byKey.keys()])) {
      let { synced, entries } = was;
      const all = byKey.get(was.key)!;
      // A reply has the payload of a record once.
      const theirs = all.map(({ result }) => (result.winner ?? result.current)?.payload).find(Boolean);
      for (const { op, result } of all) {
        const { finding, ...answered } = answer({ synced, entries }, op, result, was, state.cursor, author);
        ({ synced, entries } = answered);
        if (finding) await this.find(tx, was.key, op.stamp.opId, { ...finding, theirs: theirs ?? finding.theirs }, op);
      }
      changes.push(synced === was.synced ? { was, entries } : { was, synced: synced!, entries });
    }
    await this.#save(tx, state, changes);
    return changes;
  }

  /** Saves, and remembers the hlc of what leaves the outbox. */
  async #save(tx: Tx, state: State, changes: Changed[]): Promise<void> {
    for (const { op: { stamp } } of changes.flatMap(({ was }) => was.entries)) {
      if (!state.hlc || stamp.hlc > state.hlc) state.hlc = stamp.hlc;
    }
    // A mark is of use as long as there are ops.
    await tx.save(changes.map((change) => {
      const { was, synced = was.synced, entries = was.entries } = change;
      return synced?.left && !entries[0] ? { ...change, synced: null } : change;
    }));
  }

  async find(tx: Tx, key: Key, id: string, finding: Finding, op?: Op): Promise<void> {
    const { tableName, pk } = partsOf(key);
    const patch = op?.operation === 'patch' && op.payload;
    if (patch) finding.fields ??= Object.keys(patch);
    if (finding.kind === 'changed') {
      // Edits that build on one that was not stored are refused after it: one conflict for all.
      const known = (await conflictsOf(tx, key)).find((other) => other.kind === 'changed' && other.id !== id);
      if (known) await tx.removeConflict(known.id);
      if (known?.mine && patch) {
        finding.mine = { ...known.mine, ...patch };
        finding.fields = known.fields && [...new Set([...known.fields, ...finding.fields!])];
      }
    }
    const conflict: Conflict = { id, tableName, pk, ...finding, at: this.options.now() };
    await tx.putConflict(conflict);
    this.options.tell('conflict', conflict);
  }

  /** Pulls up to the head. */
  async pull(signal: AbortSignal): Promise<void> {
    for (let hasMore = true; hasMore;) {
      const call = await this.begin();
      if (call.snapshot) {
        await this.#finishSnapshot(signal);
        continue;
      }
      const { cursor, proof, filter: tables, scopes } = call;
      const reply = await this.page<PullReply>('pull', { cursor, proof, tables, scopes, latest: true }, signal);
      const { snapshot } = await this.answered(call, (tx, state) => this.#applyPage(tx, state, reply));
      hasMore = reply.hasMore || !!snapshot;
      if (!reply.requiresSnapshot) this.#tellPulled(reply);
    }
    if (this.hasMore) await this.push(signal);
  }

  /** Wishes for other scopes, which the next pull follows. */
  async wish(scopes: string[] | null): Promise<void> {
    await this.change(async (tx, state) => {
      if (isEqual(scopes, state.wished)) return false;
      state.wished = scopes;
      state.answered = ++state.calls;
      // What has arrived is of another list.
      if (state.snapshot) state.snapshot = state.snapshot.isPart ? null : NOTHING;
      return await tx.unstage();
    });
  }

  /** A call that is answered with a page, a smaller one if the server cannot send it. */
  async page<Reply>(name: string, body: object, signal: AbortSignal): Promise<Reply> {
    const pageLimit = this.#pageLimit;
    try {
      return await this.#server.call<Reply>(this.options.workspace, name, { ...body, pageLimit }, signal);
    } catch (error) {
      if (remedyOf(error) !== 'content' || pageLimit === 1) throw error;
      this.#pageLimit = Math.floor(pageLimit / 2);
      return await this.page(name, body, signal);
    }
  }

  /** Stores an event of a stream that was opened from a state. Returns whether the stream goes on;
   * if not, pull and open another. */
  async receive(reply: PullReply, opened: Pick<State, 'deviceId' | 'generation'>): Promise<boolean> {
    let goesOn = false;
    let isNews = false;
    await this.change(async (tx, state) => {
      if (state.deviceId !== opened.deviceId || state.generation !== opened.generation || state.snapshot) return false;
      goesOn = !reply.requiresSnapshot;
      isNews = goesOn && reply.nextCursor > state.cursor;
      if (goesOn && !isNews) return false;
      // It counts as a call that has just been answered.
      state.answered = ++state.calls;
      await this.#applyPage(tx, state, reply);
      goesOn = !state.snapshot;
    });
    if (isNews) this.#tellPulled(reply);
    return goesOn;
  }

  #tellPulled({ changes, nextCursor: cursor, serverVersion: head }: PullReply): void {
    if (changes.length > 0) this.options.tell('pulled', { changes: changes.length, cursor, head });
  }

  async #applyPage(tx: Tx, state: State, page: PullReply): Promise<void> {
    if (page.requiresSnapshot) {
      state.snapshot = NOTHING;
      state.historyLost ||= page.reason !== 'cursor_expired' && page.reason !== 'scopes_changed';
      return;
    }
    const byKey = groupBy(page.changes, ({ tableName, pk }) => keyOf(tableName, pk));
    for (const keys of inParts([...byKey.keys()])) {
      const changes: Changed[] = [];
      for (const was of await tx.known(keys)) {
        let { synced } = was;
        for (const change of byKey.get(was.key)!) {
          const before = synced;
          synced = apply(synced, change);
          if (before?.newest && change.overwrote === before.newest
            && change.stamp.deviceId !== state.deviceId && this.#isOwn(state, before)) {
            const [mine, theirs] = [before.payload, synced.payload];
            if (!isEqual(mine, theirs) && isEqual(see(synced, was.entries).payload, theirs)) {
              await this.find(tx, was.key, change.overwrote, { kind: 'overwritten', mine, theirs });
            }
          }
        }
        changes.push({ was, synced: synced! });
      }
      await this.#save(tx, state, changes);
    }
    state.cursor = page.nextCursor;
    state.proof = page.proof;
    if (page.hasMore) return;
    await this.settle(tx, state, page.serverVersion);
    const { scopes, wished } = state;
    if (!isEqual(scopes, wished)) state.snapshot = { ...NOTHING, isPart: !!(scopes && wished) };
  }

  /** Whether this device made a record's newest entry. */
  #isOwn(state: State, { newest, register, fields }: NonNullable<Known['synced']>): boolean {
    const made = [register, ...Object.values(fields ?? {})].find((revision) => revision?.opId === newest);
    return !!made && this.author(state).isOwn(made.hlc);
  }

  /** After the last page: what the server holds for good leaves the outbox. */
  async settle(tx: Tx, state: State, head: number): Promise<void> {
    state.isComplete = true;
    const open = groupBy((await tx.outbox()).filter(isUnsettled), keyOfEntry);
    const changes: Changed[] = [];
    for (const was of await tx.known([...open.keys()])) {
      const { entries, dropped } = settle(was.synced, was.entries, state.cursor, head);
      this.hasMore ||= entries.some((entry) => !isUnsettled(entry));
      if (dropped.length > 0) {
        const patched = Object.fromEntries(dropped.flatMap(({ op }) => Object.entries(op.payload!)));
        const error = { code: 'BASE_MISSING', message: 'the server has no such record' };
        const missing: Finding & { id: string } = {
          id: dropped.at(-1)!.op.stamp.opId,
          kind: 'refused',
          mine: see(was.synced, was.entries).payload,
          theirs: was.synced?.payload,
          error,
        };
        // They go with the put that they edit: what became of it is what there is to say.
        const { id, mine, ...finding } = (await conflictsOf(tx, was.key)).at(-1) ?? missing;
        await this.find(tx, was.key, id, { ...finding, mine: { ...mine, ...patched } });
      }
      changes.push({ was, entries });
    }
    await this.#save(tx, state, changes);
  }

  /** What most rounds never need is loaded when it is. */
  async #finishSnapshot(signal: AbortSignal): Promise<void> {
    const { finishSnapshot } = await import('./snapshot.ts').catch((cause) => {
      throw new SyncError('NETWORK', 'no answer', { cause });
    });
    await finishSnapshot(this, signal);
  }

  /** Tells the server that what lies before the cursor is stored here. */
  async acknowledge(signal: AbortSignal): Promise<void> {
    const { workspace, now } = this.options;
    const { deviceId, cursor: version, isComplete, snapshot, acknowledged } = await this.read();
    const isDue = version > acknowledged.version || Math.abs(now() - acknowledged.at) > HEARTBEAT;
    if (!isComplete || snapshot || version === 0 || !isDue) return;
    await this.#server.call(workspace, 'cursor', { deviceId, version }, signal);
    await this.change(async (_, state) => {
      state.acknowledged = { version, at: now() };
      return state.deviceId === deviceId;
    }, ['state']);
  }

  async read(): Promise<State> {
    return await this.#store.read((tx) => this.state(tx), ['state']);
  }

  /** Stores what the body makes of the state, unless it returns false. Returns that state. */
  async change(body: (tx: Tx, state: State) => Promise<unknown>, parts?: Part[]): Promise<State> {
    return await this.#store.transaction(async (tx) => {
      const state = await this.state(tx);
      if (await body(tx, state) !== false) await tx.setState(state);
      return state;
    }, parts);
  }

  /** A call begins: the state from which it does, with the call's number in `calls`. */
  async begin(): Promise<State> {
    return await this.change(async (_, state) => ++state.calls, ['state']);
  }

  /** Stores what a call's reply says, unless that of a later one was stored, or one that has moved
   * on from where this one began. */
  async answered(begun: State, body: (tx: Tx, state: State) => Promise<void>, parts?: Part[]): Promise<State> {
    return await this.change(async (tx, state) => {
      if (state.answered > begun.calls || placeOf(state) !== placeOf(begun)) {
        throw new SyncError('LATE', 'another tab was first');
      }
      state.answered = begun.calls;
      await body(tx, state);
    }, parts);
  }
}

function placeOf({ deviceId, cursor, proof, snapshot }: State): string {
  return JSON.stringify([deviceId, cursor, proof, snapshot]);
}

async function conflictsOf(tx: Tx, key: Key): Promise<Conflict[]> {
  return (await tx.conflicts()).filter(({ tableName, pk }) => keyOf(tableName, pk) === key);
}

/** A complete pull settles it. */
export function isUnsettled({ answered, waits }: Entry): boolean {
  return answered !== undefined || waits === true;
}

function keyOfEntry({ op }: { op: Op }): Key {
  return keyOf(op.tableName, op.pk);
}

/** The ops that wait for being pushed: those that were refused for now come last. */
function inTurn(entries: Entry[]): Op[] {
  const isAgain = ({ retry }: Entry) => Number(retry !== undefined);
  return entries.filter((entry) => !isUnsettled(entry)).sort((a, b) => isAgain(a) - isAgain(b)).map(({ op }) => op);
}

/** The first ops, as many as one push may have. */
function cut(ops: Op[], limit: number): Op[] {
  let length = 0;
  const fitting = ops.slice(0, limit);
  const end = fitting.findIndex((op) => (length += JSON.stringify(op).length) > PUSH_LENGTH);
  return end < 0 ? fitting : fitting.slice(0, Math.max(end, 1));
}
