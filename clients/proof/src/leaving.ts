import type { PushResult } from '../../typescript/src/index.ts';
import { type Key, type Stored, keyOf, news } from './watch.ts';
import { NOTHING, type Pending, holds, same, seen } from './view.ts';

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

export type Reason = 'discarded' | 'merged' | 'settled' | 'refused' | 'made again';

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
    if (passed || holds(known, entry.op)) return 'settled';
  }
  return results.some(({ success, retry }) => !success && !retry) && isTold ? 'refused' : undefined;
}

/** Whether a new put has taken the place of the record's ops, and shows what its user saw. */
function madeAgain({ key, was, now }: Leaving): boolean {
  const of = ({ pending }: Stored) => pending.filter(({ op }) => keyOf(op) === key);
  const before = new Set(of(was).map(({ op }) => op.stamp.opId));
  const isNew = of(now).some(({ op }) => op.operation === 'put' && !before.has(op.stamp.opId));
  const see = (stored: Stored) => seen(stored.known.get(key) ?? NOTHING, of(stored));
  return isNew && same(see(was), see(now));
}
