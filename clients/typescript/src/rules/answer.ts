import type { Change, Fields, Op, Payload, PushResult } from '../wire.ts';
import type { Conflict, Known } from '../store/store.ts';
import { type Author, makeAgain } from './edit.ts';
import { isEqual } from './json.ts';
import { isSame, revisionOf } from './revision.ts';
import { type Entry, type Synced, UNKNOWN, isHeld, see } from './view.ts';

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
  const theirs = winner?.kind === 'delete' ? null : winner?.payload;
  const mine = wanted(op, before, theirs);
  const answered: Answered = { entries: others, synced: known };
  if (!result.success) {
    const { retry, errorCode: code = 'REFUSED', error: message = '', sqlState, constraint } = result;
    if (retry) answered.entries = by({ ...entry, retry: message });
    else if (code === 'BASE_MISSING') answered.entries = by({ ...entry, waits: true });
    else if (code !== 'RECORD_CONFLICT' && code !== 'FIELD_CONFLICT') {
      answered.finding = { kind: 'refused', mine, theirs, error: { code, message, sqlState, constraint } };
    } else if (!isEqual(mine, theirs)) answered.finding = { kind: 'changed', mine, theirs };
    return answered;
  }
  const { serverVersion: version = 0, payload: stored, lost, replayed } = result;
  const winners = winner?.serverVersion ?? version;
  if (winner?.kind === 'delete' && winners < version && entry.unknowing && mine) {
    const left = others.filter((other) => other.op.operation !== 'patch');
    const again = makeAgain(op, mine, winner.revision, see(known, entries).clock, author);
    return { entries: [...left, again], synced: known };
  }
  // What the author lost to somebody else at the op's turn, if it makes a difference.
  if (at === entries.length - 1) {
    if (winner && winners < version && !author.isOwn(winner.revision.hlc)) {
      if (!isEqual(mine, theirs)) answered.finding = { kind: 'lost', mine, theirs };
    } else if (lost && !replayed) answered.finding = { kind: 'lost', mine, fields: lost };
  }
  if (Math.min(version, winners) > cursor) {
    const { unknowing: _, retry: __, ...rest } = entry;
    answered.entries = by({ ...rest, answered: Math.max(version, winners), ...(stored && { stored }) });
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

export function knowClock(synced: Synced = UNKNOWN, clock: number): Synced {
  return clock > synced.clock ? { ...synced, clock } : synced;
}

/** What is synced of a record after a change that was pulled. */
export function apply(synced: Synced | undefined, change: Change): Synced {
  const { op, applied, base, payload, fields, scope, stamp, serverVersion: version } = change;
  const known = knowClock(synced, stamp.clock);
  const now: Synced = { version, register: revisionOf(base ?? stamp), newest: stamp.opId, payload: payload ?? null, clock: known.clock };
  if (op === 'leave') return version > known.version ? markOf(now) : known;
  if (op === 'delete') now.payload = null;
  // A patch that was superseded in its own call has no payload; what superseded it follows.
  else if (!payload) return known;
  return applied && isNews(known, version) ? withParts(now, fields, scope) : known;
}

/** Whether what a change or row of that version says is newer than what is synced: a mark says
 * less than either. */
export function isNews({ version, left }: Synced = UNKNOWN, other: number): boolean {
  return other > version || (other === version && !!left);
}

/** What stays of a record that is outside the scopes that are followed. */
export function markOf({ version, register, newest: left, clock }: Synced): Synced {
  return { version, register, newest: null, payload: null, clock, left: left! };
}

/** With what not all records have. */
export function withParts(synced: Synced, fields?: Fields, scope?: string): Synced {
  return { ...synced, ...(fields && { fields }), ...(scope !== undefined && { scope }) };
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
      // It was lost in a restore, or is of a record outside: pushed again, as the same op.
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
