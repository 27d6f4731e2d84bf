import type { SnapshotItem } from '../wire.ts';
import { withParts } from './answer.ts';
import { compare } from './revision.ts';
import { type Synced, holderOf } from './view.ts';

/** What is synced of a record that a snapshot lists. */
export function syncedOf({ payload, revision, fields, opId, scope, serverVersion: version }: SnapshotItem): Synced {
  const newest = opId ?? revision.opId;
  return withParts({ version, register: revision, newest, payload: payload ?? null, clock: revision.clock }, fields, scope);
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
