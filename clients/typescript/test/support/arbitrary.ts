import fc from 'fast-check';
import { compare } from '../../src/rules/revision.ts';
import type { Entry, Synced } from '../../src/rules/view.ts';
import type { Json, Op, Payload, Revision } from '../../src/wire.ts';

/** Text as Postgres stores it: any but lone surrogates. */
export const text = fc.string({ unit: 'binary' });

/** Names that an object has without being given them, and others. */
export const fieldName = fc.constantFrom('a', 'b', 'c', '__proto__', 'constructor', 'toString');

export const json = fc.jsonValue({ stringUnit: 'binary', maxDepth: 3 }) as fc.Arbitrary<Json>;

export const payload: fc.Arbitrary<Payload> = fc.uniqueArray(
  fc.tuple(fieldName, fc.oneof(fc.integer({ min: 0, max: 3 }), fc.constant(null), json)),
  { selector: ([name]) => name, maxLength: 4 },
).map((members) => Object.fromEntries(members));

/** Revisions that often meet in part. */
export const revision: fc.Arbitrary<Revision> = fc.record({
  clock: fc.integer({ min: 1, max: 4 }),
  hlc: fc.constantFrom('a', 'b', '\uffff', '\u{10000}'),
  opId: fc.constantFrom('1', '2', '3'),
});

/** A record's part of a store, of ops that know each other or not. The ops of the outbox are in
 * the order of revisions, as those that a device makes are. */
export const record: fc.Arbitrary<{ synced: Synced | undefined; entries: Entry[] }> = fc.tuple(
  fc.option(fc.record({ payload: fc.option(payload), clock: fc.integer({ min: 0, max: 3 }), by: fieldName, isPatched: fc.boolean() })),
  fc.array(fc.record({
    operation: fc.constantFrom('put', 'delete', 'patch', 'patch', 'patch'),
    payload,
    clock: fc.integer({ min: 0, max: 2 }),
    // Mostly what its author sees is its base.
    base: fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.nat(3) }),
    sent: fc.boolean(),
    expected: fc.integer({ min: 0, max: 5 }),
  }), { maxLength: 6 }),
).map(([seed, drafts]) => {
  let clock = 1;
  const registers: Revision[] = [];
  let synced: Synced | undefined;
  if (seed) {
    const register = { clock: clock += seed.clock, hlc: 'server', opId: 'r0' };
    registers.push(register);
    synced = { version: 1, register, newest: 'r0', payload: seed.payload, clock };
    if (seed.payload && seed.isPatched && Object.hasOwn(seed.payload, seed.by)) {
      const holder = { clock: clock += 1, hlc: 'server', opId: 'f0' };
      Object.assign(synced, { newest: 'f0', fields: Object.fromEntries([[seed.by, holder]]) });
    }
  }
  const entries: Entry[] = [];
  drafts.forEach((draft, i) => {
    const stamp = { clock: clock += 1 + draft.clock, hlc: 'me', opId: `e${i}`, deviceId: 'me' };
    const op: Op = { tableName: 't', pk: 'p', operation: draft.operation as Op['operation'], stamp };
    if (op.operation !== 'delete') op.payload = draft.payload;
    if (op.operation === 'patch') {
      const base = registers.at(-1 - draft.base);
      if (!base || Object.keys(draft.payload).length === 0) return;
      op.base = base;
    } else registers.push({ clock: stamp.clock, hlc: 'me', opId: stamp.opId });
    if (draft.expected === 0) op.expected = 'none';
    entries.push({ op, sent: draft.sent });
  });
  return { synced, entries };
});

/** What is synced of a record and what is in the outbox, as DESIGN says it: the register is the
 * highest put or delete, each field is held by the highest patch whose base is the register. */
export function model(synced: Synced | undefined, entries: readonly Entry[]) {
  const ops = entries.map(({ op }) => op);
  const highest = <T extends { at: Revision }>(all: T[]): T | undefined => (
    all.reduce<T | undefined>((best, one) => (best && compare(best.at, one.at) >= 0 ? best : one), undefined)
  );
  const registers = ops.filter(({ operation }) => operation !== 'patch').map((op) => ({ at: op.stamp as Revision, payload: op.payload ?? null }));
  if (synced?.register) registers.push({ at: synced.register, payload: synced.payload });
  const register = highest(registers);
  const payload = new Map(Object.entries(register?.payload ?? {}));
  const fields = new Map<string, Revision>();
  if (register?.payload) {
    if (compare(synced?.register, register.at) === 0) {
      for (const [name, holder] of Object.entries(synced!.fields ?? {})) fields.set(name, holder);
    }
    const patches = ops.filter(({ operation, base }) => operation === 'patch' && compare(base, register.at) === 0);
    for (const name of new Set(patches.flatMap((op) => Object.keys(op.payload!)))) {
      const held = fields.get(name);
      const writers = patches.filter((op) => Object.hasOwn(op.payload!, name)).map((op) => ({ at: op.stamp as Revision, value: op.payload![name]! }));
      const writer = highest(writers)!;
      if (compare(held, writer.at) >= 0) continue;
      fields.set(name, writer.at);
      payload.set(name, writer.value);
    }
  }
  return {
    payload: register?.payload ? Object.fromEntries(payload) as Payload : null,
    register: register?.at ?? null,
    fields: new Map([...fields].map(([name, { clock, hlc, opId }]) => [name, { clock, hlc, opId }])),
  };
}
