import { describe, expect, test } from 'vitest';
import { SyncError } from '../../src/error.ts';
import { MemoryStore } from '../../src/store/memory.ts';
import type { Op, Payload } from '../../src/wire.ts';
import { TestDevice } from '../support/device.ts';
import { type Death, KillableStore } from '../support/killable.ts';
import { FakeServer } from '../support/server.ts';

interface Scenario {
  /** What was there before, done by a device that nobody kills. */
  before?(phone: TestDevice, laptop: TestDevice, server: FakeServer): Promise<void>;
  /** What is interrupted. */
  during(phone: TestDevice, laptop: TestDevice, server: FakeServer): Promise<void>;
  /** What all see at the end. */
  notes: { [pk: string]: Payload };
  /** How many ops the server has stored then. */
  head: number;
  /** What the phone's user is told, in the end. */
  conflicts?: string[];
}

const scenarios: { [name: string]: Scenario } = {
  an_edit_and_its_way_to_the_server: {
    async during(phone) {
      await phone.write('notes', 'a', { n: 1 });
      await phone.write('notes', 'b', { n: 1 });
      await phone.settle();
    },
    notes: { a: { n: 1 }, b: { n: 1 } },
    head: 2,
  },

  edits_of_both_and_a_pull_in_pages: {
    async before(phone, laptop) {
      await phone.write('notes', 'a', { n: 1, m: 1 });
      await phone.settle();
      await laptop.pull();
      await laptop.writeAll([['notes', 'a', { n: 2, m: 1 }], ['notes', 'b', { n: 1 }], ['notes', 'c', { n: 1 }]]);
      await laptop.settle();
      await phone.write('notes', 'a', { n: 1, m: 2 });
    },
    during: (phone) => phone.settle(),
    notes: { a: { n: 2, m: 2 }, b: { n: 1 }, c: { n: 1 } },
    head: 5,
  },

  a_put_that_is_made_again: {
    async before(phone, laptop) {
      await laptop.write('notes', 'day', { text: 'laptop' });
      await laptop.push();
      await laptop.write('notes', 'day', null);
      await laptop.push();
      await phone.write('notes', 'day', { text: 'phone', n: 1 });
    },
    during: (phone) => phone.settle(),
    notes: { day: { text: 'phone', n: 1 } },
    head: 4,
  },

  a_batch_that_is_halved_around_an_op_that_is_refused: {
    async before(phone, _, server) {
      server.check = ({ name, body }) => {
        const isRefused = name === 'push' && body.length > 1 && body.some(({ pk }: Op) => pk === 'bad');
        if (isRefused) throw new SyncError('54000', 'request is too large', { status: 413 });
      };
      server.refuse = ({ pk }) => (pk === 'bad' ? { errorCode: 'VALIDATION_ERROR', error: 'no' } : undefined);
      await phone.writeAll(['a', 'bad', 'c'].map((pk) => ['notes', pk, { n: 1 }]));
    },
    during: (phone) => phone.settle(),
    notes: { a: { n: 1 }, c: { n: 1 } },
    head: 2,
    conflicts: ['refused bad'],
  },

  a_snapshot_in_pages: {
    async before(phone, laptop, server) {
      await laptop.writeAll(['a', 'b', 'c', 'd', 'e'].map((pk) => ['notes', pk, { n: 1 }]));
      await laptop.settle();
      await phone.settle();
      await laptop.write('notes', 'a', null);
      await laptop.write('notes', 'f', { n: 1 });
      await laptop.settle();
      server.gc();
      await phone.write('notes', 'b', { n: 2 });
    },
    during: (phone) => phone.settle(),
    notes: { b: { n: 2 }, c: { n: 1 }, d: { n: 1 }, e: { n: 1 }, f: { n: 1 } },
    head: 8,
  },

  a_server_that_lost_history: {
    async before(phone, laptop, server) {
      await laptop.writeAll(['a', 'b', 'c'].map((pk) => ['notes', pk, { n: 1 }]));
      await laptop.settle();
      await phone.settle();
      await phone.write('notes', 'a', { n: 2 });
      await phone.settle();
      await phone.write('notes', 'b', { n: 2 });
      await phone.push();
      server.restore(3);
    },
    during: (phone) => phone.settle(),
    notes: { a: { n: 1 }, b: { n: 2 }, c: { n: 1 } },
    head: 4,
    conflicts: ['restored a'],
  },

  another_filter: {
    async before(phone, laptop) {
      await laptop.writeAll([['notes', 'a', { n: 1 }], ['files', 'b', { n: 1 }]]);
      await laptop.settle();
      await phone.settle();
      await phone.write('notes', 'c', { n: 1 });
    },
    during: (phone) => phone.settle(),
    notes: { a: { n: 1 }, c: { n: 1 } },
    head: 3,
  },
};

describe.each(Object.entries(scenarios))('%s', (name, { before, during, notes, head, conflicts = [] }) => {
  const options = { pageLimit: 2, pushLimit: 2, ...(name === 'another_filter' && { filter: ['notes'] }) };

  /** Plays it, with an end at the transaction of a number. Returns whether that came. */
  async function play(at: number, death: Death): Promise<boolean> {
    const server = new FakeServer();
    const store = new MemoryStore();
    const laptop = await TestDevice.open(server);
    await before?.(await TestDevice.open(server, store, { ...options, filter: null }), laptop, server);
    const killable = new KillableStore(store, at, death);
    let phone: TestDevice | undefined;
    const isComplete = await killable.run(async () => {
      phone = await TestDevice.open(server, killable, options);
      await during(phone, laptop, server);
    });
    // After a transaction that failed the program goes on, else another one begins.
    const again = death === 'fails' && phone ? phone : await TestDevice.open(server, store, options);
    // What its user would do again, as it is not there.
    if (!isComplete) await during(again, laptop, server);
    await again.settle();
    expect(await again.outbox()).toEqual([]);
    expect(await again.rows('notes')).toEqual(notes);
    expect(server.rows('notes')).toEqual(notes);
    expect(server.head).toBe(head);
    expect(new Set(server.log.map(({ op }) => op.stamp.opId)).size).toBe(head);
    expect((await again.conflicts()).map(({ kind, pk }) => `${kind} ${pk}`)).toEqual(conflicts);
    const { deviceId, cursor, snapshot } = await again.state();
    expect([cursor, snapshot, server.cursors.get(deviceId)]).toEqual([server.head, null, server.head]);
    const { staged } = await again.store.read(async (tx) => ({ staged: await tx.staged(0) }));
    expect(staged).toEqual([]);
    await laptop.settle();
    expect(await laptop.rows('notes')).toEqual(notes);
    return !isComplete;
  }

  test.each<Death>(['before', 'after', 'fails'])('ends_the_same_if_any_transaction_is_its_last_%s', async (death) => {
    let at = 1;
    while (await play(at, death)) at++;
    expect(at).toBeGreaterThan(5);
  });
});
