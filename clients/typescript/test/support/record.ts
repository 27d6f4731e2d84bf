import type { Entry, Synced } from '../../src/rules/view.ts';
import type { Op, Payload, Revision } from '../../src/wire.ts';

/** A revision with the opId `name`, whose hlc is of the device. */
export function revision(clock: number, name: string, device = 'me'): Revision {
  return { clock, hlc: `${name}:${device}`, opId: name };
}

export const stamp = (clock: number, name: string) => ({ ...revision(clock, name), deviceId: 'me' });

export function put(clock: number, name: string, value: Payload, more: Partial<Entry> = {}): Entry {
  return { op: { tableName: 't', pk: 'p', operation: 'put', payload: value, stamp: stamp(clock, name) }, sent: false, ...more };
}

export function remove(clock: number, name: string): Entry {
  return { op: { tableName: 't', pk: 'p', operation: 'delete', stamp: stamp(clock, name) }, sent: false };
}

export function patch(clock: number, name: string, base: Entry | Synced, value: Payload, more: Partial<Entry> = {}): Entry {
  const { clock: at, hlc, opId } = 'op' in base ? base.op.stamp : base.register!;
  const op: Op = { tableName: 't', pk: 'p', operation: 'patch', payload: value, base: { clock: at, hlc, opId }, stamp: stamp(clock, name) };
  return { op, sent: false, ...more };
}

export function synced(clock: number, name: string, value: Payload | null, more: Partial<Synced> = {}): Synced {
  return { version: 1, register: revision(clock, name), newest: name, payload: value, clock, ...more };
}
