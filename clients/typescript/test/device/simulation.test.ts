import 'fake-indexeddb/auto';
import Dexie from 'dexie';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { SyncError } from '../../src/error.ts';
import type { EditRules } from '../../src/rules/edit.ts';
import { isEqual } from '../../src/rules/json.ts';
import { DexieStore } from '../../src/store/dexie.ts';
import { MemoryStore } from '../../src/store/memory.ts';
import { type Entry } from '../../src/rules/view.ts';
import { type Store, keyOf } from '../../src/store/store.ts';
import type { Payload, PullReply } from '../../src/wire.ts';
import { TestDevice, never } from '../support/device.ts';
import { type Death, KillableStore } from '../support/killable.ts';
import { FakeServer } from '../support/server.ts';

type Step =
  | { do: 'write'; who: number; pk: string; value: Payload | null }
  | { do: 'sync' | 'push' | 'pull' | 'hear'; who: number }
  | { do: 'sync, and lose the reply'; who: number; call: string }
  | { do: 'sync, and end'; who: number; at: number; death: Death }
  | { do: 'sync, and hear a reply late'; who: number; call: string; meanwhile: 'sync' | 'push' | 'pull' | 'hear' }
  | { do: 'restore'; by: number }
  | { do: 'gc' | 'catch up' }
  | { do: 'lag'; by: number }
  | { do: 'wish'; who: number; list: string[] | null }
  /** Another field has the scope. */
  | { do: 'epoch' }
  | { do: 'refuse'; what: 'nothing' | 'puts' | 'patches' | 'for now' };

const who = fc.nat(2);
const call = fc.constantFrom('push', 'pull', 'snapshot', 'cursor');
const value = fc.dictionary(fc.constantFrom('a', 'b', 'c'), fc.integer({ min: 0, max: 3 }), { maxKeys: 3 });
const weighed = <T>(weight: number, arbitrary: fc.Arbitrary<T>) => ({ weight, arbitrary });
const step: fc.Arbitrary<Step> = fc.oneof(
  weighed(8, fc.record({ do: fc.constant('write' as const), who, pk: fc.constantFrom('x', 'y'), value: fc.option(value, { freq: 4 }) })),
  weighed(6, fc.record({ do: fc.constantFrom('sync' as const, 'push' as const, 'pull' as const, 'hear' as const), who })),
  weighed(2, fc.record({ do: fc.constant('sync, and lose the reply' as const), who, call })),
  weighed(2, fc.record({ do: fc.constant('sync, and end' as const), who, at: fc.integer({ min: 1, max: 8 }), death: fc.constantFrom<Death>('before', 'after', 'fails') })),
  weighed(2, fc.record({ do: fc.constant('sync, and hear a reply late' as const), who, call, meanwhile: fc.constantFrom('sync' as const, 'push' as const, 'pull' as const, 'hear' as const) })),
  weighed(1, fc.record({ do: fc.constant('restore' as const), by: fc.integer({ min: 1, max: 4 }) })),
  weighed(2, fc.record({ do: fc.constantFrom('gc' as const, 'catch up' as const) })),
  weighed(1, fc.record({ do: fc.constant('lag' as const), by: fc.integer({ min: 1, max: 3 }) })),
  weighed(1, fc.record({ do: fc.constant('refuse' as const), what: fc.constantFrom('nothing' as const, 'puts' as const, 'patches' as const, 'for now' as const) })),
);

/** Where records have scopes, by the field a: devices follow lists, and change them. */
const list = fc.option(fc.uniqueArray(fc.constantFrom('', '0', '1', '2', '3'), { maxLength: 3 }), { freq: 8 });
const scopedStep: fc.Arbitrary<Step> = fc.oneof(
  weighed(30, step),
  weighed(5, fc.record({ do: fc.constant('wish' as const), who, list })),
  weighed(1, fc.record({ do: fc.constant('epoch' as const) })),
);

/** Three devices: one that merges, one of puts alone, one that edits on condition. */
const RULES: EditRules[] = [
  { patches: true, conflicts: 'merge' },
  { patches: false, conflicts: 'merge' },
  { patches: true, conflicts: 'ask' },
];

class World {
  readonly server = new FakeServer();
  readonly stores: Store[];
  readonly outboxes: Entry[][] = RULES.map(() => []);
  readonly devices: TestDevice[] = [];

  constructor(makeStore: () => Store) {
    this.stores = RULES.map(makeStore);
  }

  async open(who: number, store = this.stores[who]!): Promise<TestDevice> {
    const options = { rulesOf: () => RULES[who]!, pushLimit: 3, pageLimit: 2, tables: ['notes'] };
    return await TestDevice.open(this.server, store, options);
  }

  async run(step: Step): Promise<void> {
    const { server } = this;
    const device = 'who' in step ? this.devices[step.who]! : this.devices[0]!;
    switch (step.do) {
      case 'write':
        await device.write('notes', step.pk, step.value);
        expect((await device.rows('notes'))[step.pk] ?? null).toEqual(step.value);
        break;
      case 'sync, and lose the reply':
        server.loseReply(step.call);
        await this.act(device, 'sync');
        server.forget();
        break;
      case 'sync, and end': {
        const store = new KillableStore(this.stores[step.who]!, step.at, step.death);
        await store.run(async () => this.act(await this.open(step.who, store), 'sync'));
        this.devices[step.who] = await this.open(step.who);
        break;
      }
      case 'sync, and hear a reply late': {
        const { arrived, release } = server.hold(step.call);
        const late = this.act(device, 'sync');
        await Promise.race([arrived, late]);
        const tab = await this.open(step.who);
        server.forget();
        await this.act(tab, step.meanwhile);
        release();
        await late;
        break;
      }
      case 'restore':
        server.standby = undefined;
        server.restore(Math.max(0, server.head - step.by));
        break;
      case 'gc':
        server.gc();
        break;
      case 'wish':
        await device.device.wish(step.list?.toSorted() ?? null);
        break;
      case 'epoch':
        server.standby = undefined;
        server.setScopeField('notes', server.scopeFields.notes === 'a' ? 'b' : 'a');
        break;
      case 'lag':
        server.standby = server.at(Math.max(Math.min(server.epochHead, server.head), server.head - step.by));
        break;
      case 'catch up':
        server.standby = undefined;
        break;
      case 'refuse':
        server.refuse = ({ operation }) => {
          if (step.what === 'for now') return { errorCode: 'CONSTRAINT', retry: true, error: 'no parent' };
          const isRefused = operation === (step.what === 'puts' ? 'put' : 'patch') && step.what !== 'nothing';
          return isRefused ? { errorCode: 'VALIDATION_ERROR', error: 'no' } : undefined;
        };
        break;
      default:
        await this.act(device, step.do);
    }
  }

  /** What may fail as calls and disks do. */
  async act(device: TestDevice, what: 'sync' | 'push' | 'pull' | 'hear'): Promise<void> {
    try {
      if (what === 'hear') await this.hear(device);
      else await device[what]();
    } catch (error) {
      if (!(error instanceof SyncError)) throw error;
    }
  }

  /** An event of a stream that was opened where the device is. */
  async hear(device: TestDevice): Promise<void> {
    const opened = await device.state();
    const { cursor, proof, filter: tables, scopes } = opened;
    const reply = await this.server.call<PullReply>('w', 'pull', { cursor, proof, tables, scopes, latest: true, pageLimit: 2 });
    await device.device.receive(reply, opened);
  }

  /** What holds at any time. */
  async check(step: Step | undefined): Promise<void> {
    for (const [i, device] of this.devices.entries()) {
      expect(await device.rows('notes')).toEqual(await device.seen('notes'));
      const now = await device.store.read((tx) => tx.outbox());
      const conflicts = await device.conflicts();
      for (const { op, sent } of this.outboxes[i]!) {
        const { opId, clock, deviceId } = op.stamp;
        if (now.some((entry) => entry.op.stamp.opId === opId)) continue;
        // Nothing is lost: it was replaced by its user, the server had it, its user was told, or
        // its put was made again with it, or its user replaced it by a later edit.
        const isReplaced = step?.do === 'write' && !sent;
        const isStored = this.server.stored.some(({ stamp }) => stamp.opId === opId);
        const isTold = conflicts.some(({ pk }) => pk === op.pk);
        const later = [...this.outboxes[i]!.map((entry) => entry.op), ...now.map((entry) => entry.op), ...this.server.stored].filter((other) => (
          other.pk === op.pk && other.stamp.deviceId === deviceId && other.stamp.clock > clock
        ));
        const isReplacedLater = op.expected !== undefined && later.length > 0;
        const isMadeAgain = op.operation === 'patch' && later.some(({ operation }) => operation === 'put');
        // Somebody else wanted the same.
        const theirs = this.server.records.get(keyOf('notes', op.pk))?.payload ?? null;
        const isSame = isEqual(theirs, op.operation === 'delete' ? null : { ...(op.operation === 'patch' && theirs), ...op.payload });
        if (!isReplaced && !isStored && !isTold && !isMadeAgain && !isReplacedLater && !isSame) throw new Error(`${opId} is lost`);
      }
      this.outboxes[i] = now;
    }
  }

  /** All is well again: all devices come to see what the server has. */
  async heal(): Promise<void> {
    const { server } = this;
    server.standby = undefined;
    server.refuse = () => undefined;
    for (let round = 0; round < 3; round++) {
      for (const device of this.devices) {
        // A snapshot from before a restore looks like one of a standby that lags.
        await this.act(device, 'sync');
        await device.settle();
        await this.check(undefined);
      }
    }
    for (const device of this.devices) {
      expect(await device.outbox()).toEqual([]);
      const { scopes, wished } = await device.state();
      expect(scopes).toEqual(wished);
      expect(await device.rows('notes')).toEqual(server.rows('notes', scopes));
      const { cursor, historyLost, snapshot, deviceId } = await device.state();
      expect({ cursor, historyLost, snapshot }).toEqual({ cursor: server.head, historyLost: false, snapshot: null });
      if (cursor > 0) expect(server.cursors.get(deviceId)).toBeLessThanOrEqual(cursor);
      for (const pk of ['x', 'y']) {
        const record = server.records.get(keyOf('notes', pk));
        const { synced } = await device.known('notes', pk);
        if (!record?.payload || (scopes && record.scope !== null && !scopes.includes(record.scope))) expect(synced?.payload ?? null).toBeNull();
        else {
          const { register, payload, fields, newest, version } = record;
          expect(synced).toMatchObject({ register, payload, newest, version });
          expect(synced!.fields ?? {}).toEqual(fields);
        }
      }
    }
  }
}

let databases = 0;

function newDatabase(): Store {
  const db = new Dexie(`simulation ${++databases}`);
  db.version(1).stores({ notes: '' });
  return new DexieStore(db, new Map([['notes', {}]]), { capture: async () => {}, captured: () => {}, blocked: () => {}, closed: () => {} });
}

async function play(steps: Step[], makeStore: () => Store = () => new MemoryStore(), isScoped = false): Promise<void> {
  // In memory nothing else gives Vitest a turn, which takes a test for hung after a minute.
  await new Promise(setImmediate);
  const world = new World(makeStore);
  if (isScoped) world.server.scopeFields = { notes: 'a' };
  for (const who of RULES.keys()) world.devices.push(await world.open(who));
  for (const step of steps) {
    await world.run(step);
    await world.check(step);
  }
  await world.heal();
  await world.check(undefined);
}

test('whatever_happens_all_devices_come_to_see_what_the_server_has_and_nothing_is_lost', async () => {
  await fc.assert(fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40, size: 'max' }), (steps) => play(steps)), {
    numRuns: Number(process.env.SYNC_EXT_RUNS ?? 100),
  });
}, 600_000);

test('the_same_in_databases', async () => {
  await fc.assert(fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40, size: 'max' }), (steps) => play(steps, newDatabase)), {
    numRuns: Number(process.env.SYNC_EXT_RUNS ?? 10),
  });
}, 600_000);

test('each_device_comes_to_see_exactly_what_is_inside_its_list_of_scopes', async () => {
  await fc.assert(fc.asyncProperty(fc.array(scopedStep, { minLength: 5, maxLength: 40, size: 'max' }), (steps) => play(steps, undefined, true)), {
    numRuns: Number(process.env.SYNC_EXT_RUNS ?? 100),
  });
}, 600_000);

test('the_same_with_scopes_in_databases', async () => {
  await fc.assert(fc.asyncProperty(fc.array(scopedStep, { minLength: 5, maxLength: 40, size: 'max' }), (steps) => play(steps, newDatabase, true)), {
    numRuns: Number(process.env.SYNC_EXT_RUNS ?? 10),
  });
}, 600_000);

test('the_same_state_by_pulls_and_by_a_snapshot', async () => {
  await fc.assert(fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 20, size: 'max' }), async (steps) => {
    const world = new World(() => new MemoryStore());
    for (const who of RULES.keys()) world.devices.push(await world.open(who));
    for (const step of steps) await world.run(step);
    await world.heal();
    const fresh = await TestDevice.open(world.server);
    await fresh.device.pull(never);
    expect(await fresh.rows('notes')).toEqual(await world.devices[0]!.rows('notes'));
  }), { numRuns: 30 });
});
