import type { Fields, Op, Payload, Revision } from '../wire.ts';
import { compare, isSame, revisionOf } from './revision.ts';

/** What the server last told of a record. */
export interface Synced {
  /** Of its newest entry; 0 if only a clock is known. */
  version: number;
  /** Its put or delete of the highest revision; null if only a clock is known. */
  register: Revision | null;
  /** The opId of its newest entry; null if the record is not known. */
  newest: string | null;
  /** null: deleted. */
  payload: Payload | null;
  fields?: Fields;
  /** The highest clock known of it. */
  clock: number;
  /** Where its table has scopes. */
  scope?: string;
  /** It is a mark: the record is outside the scopes that are followed. The opId of the op by which
   * it left, or its newest entry's. */
  left?: string;
}

/** An op that waits in the outbox until the server holds it for good. */
export interface Entry {
  op: Op;
  /** Its content cannot change any more: a server may have it. */
  sent: boolean;
  /** The highest version that the answer to its push told. */
  answered?: number;
  /** An unanswered put whose author knew nothing of the record. */
  unknowing?: boolean;
  /** The row that the server made of it. */
  stored?: Payload;
  /** Pushed again in each round, after the others: the reason of the last refusal. */
  retry?: string;
  /** A patch whose base was missing: not pushed before the next complete pull. */
  waits?: boolean;
}

/** A record as its user sees it: the outbox over what is synced. */
export interface View {
  /** null: there is none. */
  payload: Payload | null;
  register: Revision | null;
  fields: Fields;
  newest: string | null;
  clock: number;
}

/** Of a record of which nothing is known. */
export const UNKNOWN: Synced = { version: 0, register: null, newest: null, payload: null, clock: 0 };

export function see(synced: Synced = UNKNOWN, entries: readonly Entry[]): View {
  const { version, payload, register, fields = {}, newest, clock } = synced;
  const view: View = { payload, register, fields, newest, clock };
  for (const field of Object.values(fields)) view.clock = Math.max(view.clock, field.clock);
  for (const entry of entries.toSorted((a, b) => compare(a.op.stamp, b.op.stamp))) {
    view.clock = Math.max(view.clock, entry.op.stamp.clock);
    lay(entry, view, version);
  }
  return view;
}

/** The revision that holds a field. A field may have the name of what each object has, like
 * `constructor`. */
export function holderOf(fields: Fields | undefined, name: string): Revision | undefined {
  return fields && Object.hasOwn(fields, name) ? fields[name] : undefined;
}

/** Lays an entry over a record, if it wins. */
function lay({ op, stored, answered }: Entry, view: View, version: number): void {
  // The server's row is worth showing until a pull has brought it, or a newer one.
  const row = stored && version < answered! ? stored : undefined;
  const revision = revisionOf(op.stamp);
  if (op.operation !== 'patch') {
    if (compare(revision, view.register) <= 0) return;
    view.payload = op.operation === 'put' ? (row ?? op.payload!) : null;
    view.register = revision;
    view.fields = {};
  } else {
    if (!view.payload || !isSame(op.base, view.register)) return;
    const won = Object.entries(op.payload!).filter(([name]) => compare(revision, holderOf(view.fields, name)) > 0);
    if (won.length === 0) return;
    view.payload = row ?? { ...view.payload, ...Object.fromEntries(won) };
    view.fields = { ...view.fields, ...Object.fromEntries(won.map(([name]) => [name, revision])) };
  }
  view.newest = op.stamp.opId;
}

/** Whether what is synced holds an op, or ops that beat it. */
export function isHeld(op: Op, synced: Synced | undefined): boolean {
  if (synced?.left === op.stamp.opId) return true;
  if (op.operation !== 'patch') return compare(synced?.register, op.stamp) >= 0;
  const order = compare(synced?.register, op.base);
  return order > 0 || (order === 0
    && Object.keys(op.payload!).every((name) => compare(holderOf(synced!.fields, name), op.stamp) >= 0));
}
