import type { Change, Op, Payload, PushResult, SnapshotItem, Winner } from '../wire.ts';
import type { Conflict, Known } from '../store/store.ts';
import { type Author, makeAgain } from './edit.ts';
import { isEqual } from './json.ts';
import { compare, isSame, revisionOf } from './revision.ts';
import { type Entry, type Synced, holderOf, isHeld, see } from './view.ts';

/** A conflict without what its record and the time say. */
export type Finding = Pick<Conflict, 'kind' | 'mine' | 'theirs' | 'fields' | 'error'>;

export interface Answered {
  entries: Entry[];
  synced: Synced | undefined;
  finding?: Finding;
}

/** What the answer to one op of a record does to it. `before` is the record when the reply came,
 * which may have answered other ops of it. */
export function answer(
  { synced, entries }: Pick<Known, 'synced' | 'entries'>,
  op: Op,
  result: PushResult,
  before: Pick<Known, 'synced' | 'entries'>,
  cursor: number,
  author: Author,
): Answered {
  const at = entries.findIndex((entry) => entry.op.stamp.opId === op.stamp.opId);
  const entry = entries[at];
  if (!entry) return { entries: [...entries], synced };
  const others = entries.toSpliced(at, 1);
  const by = (changed: Entry) => entries.with(at, changed);
  const winner = result.winner ?? result.current;
  const known = winner ? knowClock(synced, winner.revision.clock) : synced;
  const mine = wanted(op, before, payloadOf(winner));
  if (!result.success) {
    if (result.retry) return { entries: by({ ...entry, retry: result.error ?? '' }), synced: known };
    if (result.errorCode === 'BASE_MISSING') return { entries: by({ ...entry, waits: true }), synced: known };
    const isCondition = result.errorCode === 'RECORD_CONFLICT' || result.errorCode === 'FIELD_CONFLICT';
    const theirs = payloadOf(winner);
    const refused: Answered = { entries: others, synced: known };
    if (!isCondition) refused.finding = { kind: 'refused', mine, theirs, error: reasonOf(result) };
    else if (!isEqual(mine, theirs)) refused.finding = { kind: 'changed', mine, theirs };
    return refused;
  }
  const version = result.serverVersion!;
  const isBehind = winner !== undefined && winner.serverVersion < version;
  const isLast = at === entries.length - 1;
  if (isBehind && winner.kind === 'delete' && entry.unknowing && mine) {
    const left = others.filter((other) => other.op.operation !== 'patch');
    const again = makeAgain(op, mine, winner.revision, see(known, entries).clock, author);
    return { entries: [...left, again], synced: known };
  }
  const answered: Answered = { entries: others, synced: known };
  const finding = isLast ? lossOf(result, isBehind, mine, author) : undefined;
  if (finding) answered.finding = finding;
  const told = Math.max(version, winner?.serverVersion ?? 0);
  if (Math.min(version, winner?.serverVersion ?? version) > cursor) {
    const { unknowing: _, retry: __, ...rest } = entry;
    answered.entries = by({ ...rest, answered: told, ...(result.payload && { stored: result.payload }) });
  }
  return answered;
}

/** A record as the author of an op wants it, whatever others have made of the same since. */
export function wanted(
  op: Op,
  { synced, entries }: Pick<Known, 'synced' | 'entries'>,
  theirs?: Payload | null,
): Payload | null {
  if (op.operation === 'patch') return { ...(theirs ?? see(synced, entries).payload), ...op.payload };
  return op.operation === 'put' ? see(undefined, entries).payload : null;
}

/** What the author of an op lost at its turn to somebody else, if it makes a difference. */
function lossOf(result: PushResult, isBehind: boolean, mine: Payload | null, author: Author): Finding | undefined {
  const { winner, lost, replayed } = result;
  if (isBehind && !author.isOwn(winner!.revision.hlc)) {
    const theirs = payloadOf(winner);
    return isEqual(mine, theirs) ? undefined : { kind: 'lost', mine, theirs };
  }
  return lost && !replayed ? { kind: 'lost', mine, fields: lost } : undefined;
}

function payloadOf(winner: Winner | undefined): Payload | null | undefined {
  return winner?.kind === 'delete' ? null : winner?.payload;
}

function reasonOf({ errorCode, error, sqlState, constraint }: PushResult): NonNullable<Conflict['error']> {
  return { code: errorCode ?? 'REFUSED', message: error ?? '', sqlState, constraint };
}

export function knowClock(synced: Synced | undefined, clock: number): Synced {
  if (!synced) return { version: 0, register: null, newest: null, payload: null, clock };
  return clock > synced.clock ? { ...synced, clock } : synced;
}

/** What is synced of a record after a change that was pulled. */
export function apply(synced: Synced | undefined, change: Change): Synced {
  const { op, applied, payload, fields, stamp, serverVersion: version } = change;
  const clock = Math.max(synced?.clock ?? 0, stamp.clock);
  // A patch that was superseded in its own call has no payload; what superseded it follows.
  if (!applied || version <= (synced?.version ?? 0) || (op !== 'delete' && !payload)) {
    return knowClock(synced, clock);
  }
  const next: Synced = {
    version,
    register: revisionOf(op === 'patch' ? change.base! : stamp),
    newest: stamp.opId,
    payload: payload && op !== 'delete' ? payload : null,
    clock,
  };
  if (fields) next.fields = fields;
  return next;
}

export function syncedOf({ kind, payload, revision, fields, opId, serverVersion }: SnapshotItem): Synced {
  const synced: Synced = {
    version: serverVersion,
    register: revision,
    newest: opId ?? revision.opId,
    payload: kind === 'row' ? payload! : null,
    clock: revision.clock,
  };
  if (fields) synced.fields = fields;
  return synced;
}

/** The entries of a record that stay after a complete pull or snapshot up to the cursor. */
export function settle(
  synced: Synced | undefined,
  entries: readonly Entry[],
  cursor: number,
  head: number,
): { entries: Entry[]; dropped: Entry[] } {
  const dropped: Entry[] = [];
  const left: Entry[] = [];
  for (const entry of entries) {
    const { op, answered } = entry;
    if (answered !== undefined && isHeld(op, synced)) continue;
    if (answered !== undefined && (answered <= cursor || head < answered)) {
      // It was lost in a restore: pushed again, as the same op.
      const { answered: _, stored: __, ...again } = entry;
      left.push(again);
    } else if (entry.waits) {
      const hasBase = isSame(op.base, synced?.register)
        || entries.some((other) => other.op.operation === 'put' && isSame(other.op.stamp, op.base));
      const { waits: _, ...again } = entry;
      (hasBase ? left : dropped).push(again);
    } else {
      left.push(entry);
    }
  }
  return { entries: left, dropped };
}

/** Whether an own edit that was synced is not in what a restored server has. */
export function isTaken(old: Synced, now: Synced | undefined, isOwn: (hlc: string) => boolean): boolean {
  const order = compare(now?.register, old.register);
  if (old.register && isOwn(old.register.hlc) && order < 0) return true;
  return Object.entries(old.fields ?? {}).some(
    ([name, holder]) => isOwn(holder.hlc) && order <= 0
      && (order < 0 || compare(holderOf(now!.fields, name), holder) < 0),
  );
}
