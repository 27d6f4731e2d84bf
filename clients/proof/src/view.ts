/** What a user must see, written once more from the contract alone. */
import type { Op, Payload, Revision } from '../../typescript/src/index.ts';

export interface Known {
  version: number;
  register: Revision | null;
  newest: string | null;
  payload: Payload | null;
  fields: { [name: string]: Revision };
  clock: number;
  scope?: string;
  /** It is the mark of a record that went outside. */
  left?: string;
}

/** An op in the outbox. */
export interface Pending {
  op: Op;
  sent: boolean;
  answered?: number;
  unknowing?: boolean;
  stored?: Payload;
  retry?: string;
  waits?: boolean;
}

export const NOTHING: Known = { version: 0, register: null, newest: null, payload: null, fields: {}, clock: 0 };

export function order(a: Revision | null | undefined, b: Revision | null | undefined): number {
  if (!a || !b) return (a ? 1 : 0) - (b ? 1 : 0);
  const bytes = (x: string, y: string) => Buffer.compare(Buffer.from(x), Buffer.from(y));
  return a.clock - b.clock || bytes(a.hlc, b.hlc) || bytes(a.opId.toLowerCase(), b.opId.toLowerCase());
}

/** A record as its user must see it: the outbox over what is synced, in the order of revisions. */
export function seen(known: Known, pending: readonly Pending[]): Payload | null {
  let { payload, register } = known;
  let fields = { ...known.fields };
  for (const { op, stored, answered } of [...pending].sort((a, b) => order(a.op.stamp, b.op.stamp))) {
    const row = stored && answered! > known.version ? stored : undefined;
    if (op.operation === 'patch') {
      if (!payload || order(op.base, register) !== 0) continue;
      const won = Object.keys(op.payload!).filter((name) => order(op.stamp, fields[name]) > 0);
      if (won.length === 0) continue;
      for (const name of won) fields[name] = op.stamp;
      payload = row ?? { ...payload, ...Object.fromEntries(won.map((name) => [name, op.payload![name]!])) };
    } else if (order(op.stamp, register) > 0) {
      register = op.stamp;
      fields = {};
      payload = op.operation === 'put' ? (row ?? op.payload!) : null;
    }
  }
  return payload;
}

/** The highest clock that a device knows of a record. */
export function highestClock(known: Known, pending: readonly Pending[]): number {
  const clocks = [known, known.register, ...Object.values(known.fields), ...pending.map(({ op }) => op.stamp)];
  return Math.max(0, ...clocks.map((revision) => revision?.clock ?? 0));
}

/** Whether a server in that state holds an op, or what beats it. */
export function holds(known: Known, op: Op): boolean {
  if (known.left === op.stamp.opId) return true;
  if (op.operation !== 'patch') return order(known.register, op.stamp) >= 0;
  const side = order(known.register, op.base);
  return side > 0
    || (side === 0 && Object.keys(op.payload!).every((name) => order(known.fields[name], op.stamp) >= 0));
}

/** Whether two values are the same JSON. */
export function same(a: unknown, b: unknown): boolean {
  return a === b || canonical(a) === canonical(b);
}

function canonical(value: unknown): string {
  return JSON.stringify(value, (_, member: unknown) => (
    typeof member === 'object' && member !== null && !Array.isArray(member)
      ? Object.fromEntries(Object.entries(member).sort(([a], [b]) => (a < b ? -1 : 1)))
      : member
  )) ?? 'undefined';
}
