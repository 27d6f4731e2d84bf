import type { PushResult } from '../../typescript/src/index.ts';
import { type Key, type Stored, keyOf, news } from './stored.ts';
import { type Known, NOTHING, type Pending, holds, order, same, seen } from './view.ts';

export interface Leaving {
  entry: Pending;
  key: Key;
  /** The transaction stored a reply. */
  isReply: boolean;
  /** A server may have it. */
  isWired: boolean;
  was: Stored;
  now: Stored;
  results: PushResult[];
  isDiscarded: boolean;
}

export type Reason = 'discarded' | 'merged' | 'held' | 'passed' | 'refused' | 'moot' | 'made again';

/** Why an op may have left the outbox; undefined if it may not. */
export function classify(leaving: Leaving): Reason | undefined {
  const { entry, key, isReply, isWired, was, now, results, isDiscarded } = leaving;
  if (isDiscarded) return 'discarded';
  if (!isReply) return entry.sent || isWired ? undefined : 'merged';
  const known = now.known.get(key) ?? NOTHING;
  const isTold = news(was, now, key).length > 0;
  if (madeAgain(leaving)) return 'made again';
  if (results.some(({ success }) => success)) {
    const passed = results.some(({ success, serverVersion, winner }) => (
      success && Math.min(serverVersion!, winner?.serverVersion ?? Infinity) <= now.state!.cursor
    ));
    if (holds(known, entry.op)) return 'held';
    if (passed) return 'passed';
  }
  const refusals = results.filter(({ success, retry }) => !success && !retry);
  const isMissing = refusals.every(({ errorCode }) => errorCode === 'BASE_MISSING');
  if (refusals.length > 0 && isTold && !(isMissing && hasBase(leaving, known))) return 'refused';
  return results.some((result) => isMoot(leaving, result)) ? 'moot' : undefined;
}

/** Whether what a patch edits is here: the server may have it now, or will. */
function hasBase({ entry, key, now }: Leaving, { register }: Known): boolean {
  const { base } = entry.op;
  return order(register, base) === 0
    || now.pending.some(({ op }) => keyOf(op) === key && op.operation === 'put' && order(op.stamp, base) === 0);
}

/** Whether an op was refused because somebody else had done the same. */
function isMoot({ entry: { op }, key, was }: Leaving, { errorCode, current }: PushResult): boolean {
  if (errorCode !== 'RECORD_CONFLICT' && errorCode !== 'FIELD_CONFLICT') return false;
  const payload = current?.kind === 'put' ? current.payload : null;
  if (op.operation === 'delete') return payload === null;
  const mine = seen(was.known.get(key) ?? NOTHING, was.pending.filter((entry) => keyOf(entry.op) === key));
  return same(payload, op.operation === 'put' ? mine : { ...payload, ...op.payload });
}

/** Whether a new put has taken the place of the record's ops, and shows what its user saw. */
function madeAgain({ key, was, now }: Leaving): boolean {
  const of = ({ pending }: Stored) => pending.filter(({ op }) => keyOf(op) === key);
  const before = new Set(of(was).map(({ op }) => op.stamp.opId));
  const isNew = of(now).some(({ op }) => op.operation === 'put' && !before.has(op.stamp.opId));
  const see = (stored: Stored) => seen(stored.known.get(key) ?? NOTHING, of(stored));
  return isNew && same(see(was), see(now));
}
