import type { Op, Payload, Revision, Stamp } from '../wire.ts';
import { isEqual, isName, pick } from './json.ts';
import { isSame, revisionOf } from './revision.ts';
import { type Entry, type Synced, type View, holderOf, see } from './view.ts';

/** How the edits of a table become ops. */
export interface EditRules {
  /** The server's table allows patches. */
  patches?: boolean;
  /** `ask`: edits are stored only if nobody else has edited the same since. */
  conflicts?: 'merge' | 'ask';
}

export interface Author {
  deviceId: string;
  newOpId(): string;
  newHlc(): string;
  /** Whether this device made what has that hlc. */
  isOwn(hlc: string): boolean;
}

/** What an edit does to a record's part of the outbox. */
export interface Edited {
  /** Unsent entries that the edit takes the place of. */
  dropped: Entry[];
  /** In place of the last dropped one, if there is one; else at the end. */
  added: Entry | null;
}

/** The entry by which a record becomes the value, null to delete it. Nothing if it is that
 * already. */
export function edit(
  key: { tableName: string; pk: string },
  value: Payload | null,
  synced: Synced | undefined,
  entries: readonly Entry[],
  rules: EditRules,
  author: Author,
): Edited | null {
  const seen = see(synced, entries);
  if (isEqual(value, seen.payload)) return null;
  const isAsking = rules.conflicts === 'ask';
  const stamp = () => stampBy(author, seen.clock);
  const changed = value && rules.patches ? changedFields(seen, value) : null;
  if (changed) {
    const merged = isAsking ? null : mergePatch(entries.at(-1), changed, seen, stamp);
    if (merged) return { dropped: entries.slice(-1), added: merged };
    const op: Op = { ...key, operation: 'patch', payload: changed, base: seen.register!, stamp: stamp() };
    if (isAsking) op.expected = holders(seen, changed);
    return { dropped: [], added: { op, sent: false } };
  }
  const kept = isAsking ? entries.length : entries.findLastIndex((entry) => !isFree(entry)) + 1;
  const dropped = entries.slice(kept);
  const before = see(synced, entries.slice(0, kept));
  const isUnknown = before.newest === null;
  if (value === null && isUnknown) return { dropped, added: null };
  const op: Op = { ...key, operation: value ? 'put' : 'delete', stamp: stamp() };
  if (value) op.payload = value;
  op.parent = before.newest ?? 'none';
  // Behind an own op without such a condition it would say nothing of what others wrote.
  if (isAsking && entries.every(({ op }) => typeof op.expected === 'string')) {
    op.expected = seen.payload || !value ? op.parent : 'none';
  }
  const added: Entry = { op, sent: false };
  if (value && isUnknown) added.unknowing = true;
  return { dropped, added };
}

/** A put of the value with another clock, for an op that lost to a delete of which its author
 * did not know. */
export function makeAgain({ tableName, pk }: Op, value: Payload, winner: Revision, clock: number, author: Author): Entry {
  const stamp = stampBy(author, Math.max(winner.clock, clock));
  const again: Op = { tableName, pk, operation: 'put', payload: value, parent: winner.opId, stamp };
  return { op: again, sent: false };
}

/** Of an op after the highest clock known of its record. */
function stampBy(author: Author, known: number): Stamp {
  return { clock: known + 1, hlc: author.newHlc(), opId: author.newOpId(), deviceId: author.deviceId };
}

/** The fields by which the value differs, if a patch can write them all: only a put takes a field
 * away or brings a record back. */
function changedFields(seen: View, value: Payload): Payload | null {
  if (!seen.payload) return null;
  if (Object.keys(seen.payload).some((name) => !Object.hasOwn(value, name))) return null;
  const changed = pick(value, (name, member) => (
    !Object.hasOwn(seen.payload!, name) || !isEqual(member, seen.payload![name])
  ));
  return Object.keys(changed).every((name) => isName(name, 128)) ? changed : null;
}

function holders(seen: View, changed: Payload): { [field: string]: string } {
  return Object.fromEntries(Object.keys(changed).map((name) => [name, (holderOf(seen.fields, name) ?? seen.register!).opId]));
}

/** Whether the entry may still be changed, or left out: no server can have it. */
function isFree({ sent, op }: Entry): boolean {
  return !sent && op.expected === undefined;
}

/** The record's last entry with a patch merged into it, if it is the patch's base or has the same.
 * Only where it takes the patch's place it takes its stamp. */
function mergePatch(last: Entry | undefined, changed: Payload, seen: View, stamp: () => Stamp): Entry | null {
  if (!last || !isFree(last)) return null;
  const { op } = last;
  const isPut = op.operation === 'put';
  if (!isSame(isPut ? op.stamp : op.base, seen.register)) return null;
  if (isPut) return { ...last, op: { ...op, payload: { ...op.payload, ...changed } } };
  const revision = revisionOf(op.stamp);
  const visible = pick(op.payload!, (name) => isSame(holderOf(seen.fields, name), revision));
  return { ...last, op: { ...op, payload: { ...visible, ...changed }, stamp: stamp() } };
}
