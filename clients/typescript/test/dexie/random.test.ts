import 'fake-indexeddb/auto';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Payload } from '../../src/wire.ts';
import { App } from '../support/app.ts';
import { TestDevice } from '../support/device.ts';

type Write =
  | { do: 'put' | 'add'; id: string; value: Payload }
  | { do: 'update' | 'upsert'; id: string; value: Payload }
  | { do: 'delete'; id: string }
  | { do: 'bulkPut' | 'bulkAdd'; ids: string[]; value: Payload }
  | { do: 'bulkDelete'; ids: string[] }
  | { do: 'modify'; above: string; value: Payload }
  | { do: 'delete above'; above: string }
  | { do: 'clear' };

type Step =
  | { do: 'write'; write: Write }
  | { do: 'transaction'; writes: Write[]; waits: boolean; aborts: boolean }
  | { do: 'others'; ids: string[]; value: Payload | null }
  | { do: 'sync' | 'push' | 'pull' | 'restart' };

const id = fc.integer({ min: 0, max: 39 }).map((i) => `n${String(i).padStart(2, '0')}`);
const some = fc.oneof(fc.array(id, { minLength: 1, maxLength: 4 }), fc.array(id, { minLength: 30, maxLength: 60 }));
const value = fc.dictionary(fc.constantFrom('n', 'm', 'constructor'), fc.integer({ min: 0, max: 3 }), { maxKeys: 2 });
const is = <T extends string>(...names: T[]) => fc.constantFrom(...names);
const write: fc.Arbitrary<Write> = fc.oneof(
  fc.record({ do: is('put', 'add', 'update', 'upsert'), id, value }),
  fc.record({ do: is('delete'), id }),
  fc.record({ do: is('bulkPut', 'bulkAdd'), ids: some, value }),
  fc.record({ do: is('bulkDelete'), ids: some }),
  fc.record({ do: is('modify'), above: id, value }),
  fc.record({ do: is('delete above'), above: id }),
  fc.record({ do: is('clear') }),
);
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: is('write'), write }) },
  { weight: 3, arbitrary: fc.record({ do: is('transaction'), writes: fc.array(write, { minLength: 1, maxLength: 6 }), waits: fc.boolean(), aborts: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ do: is('others'), ids: some, value: fc.option(value) }) },
  { weight: 3, arbitrary: fc.record({ do: is('sync', 'push', 'pull', 'restart') }) },
);

/** As an app does it, which does not mind what fails. */
async function perform({ notes }: App, write: Write): Promise<void> {
  const done = (() => {
    switch (write.do) {
      case 'put': return notes.put({ ...write.value, id: write.id });
      case 'add': return notes.add({ ...write.value, id: write.id });
      case 'update': return notes.update(write.id, write.value);
      case 'upsert': return notes.upsert(write.id, write.value);
      case 'delete': return notes.delete(write.id);
      case 'bulkPut': return notes.bulkPut(write.ids.map((id) => ({ ...write.value, id })));
      case 'bulkAdd': return notes.bulkAdd(write.ids.map((id) => ({ ...write.value, id })));
      case 'bulkDelete': return notes.bulkDelete(write.ids);
      case 'modify': return notes.where('id').above(write.above).modify(write.value);
      case 'delete above': return notes.where('id').above(write.above).delete();
      case 'clear': return notes.clear();
    }
  })() as PromiseLike<unknown>;
  await done.then(() => {}, (error: Error) => {
    if (!['ConstraintError', 'BulkError'].includes(error.name)) throw error;
  });
}

async function run(app: App, step: Step): Promise<App> {
  switch (step.do) {
    case 'write':
      await perform(app, step.write);
      return app;
    case 'transaction':
      await app.db.transaction('rw', app.notes, async () => {
        const all = step.writes.map((write) => () => perform(app, write));
        if (step.waits) for (const one of all) await one();
        else await Promise.all(all.map((one) => one()));
        if (step.aborts) throw new Error('of the app');
      }).catch((error: Error) => {
        if (error.message !== 'of the app') throw error;
      });
      return app;
    case 'others': {
      const others = await TestDevice.open(app.server);
      await others.pull();
      await others.writeAll(step.ids.map((pk) => ['notes', pk, step.value]));
      await others.push();
      return app;
    }
    case 'restart':
      app.db.close();
      return await App.open({ name: app.store.name, server: app.server });
    default:
      await app.device[step.do]();
      return app;
  }
}

async function check(app: App): Promise<void> {
  const rows = Object.fromEntries((await app.notes.toArray()).map((row) => [row.id, row]));
  const seen = await app.device.seen('notes');
  expect(rows).toEqual(Object.fromEntries(Object.entries(seen).map(([id, payload]) => [id, { ...payload, id }])));
}

test('whatever_the_app_writes_its_rows_are_the_outbox_over_what_is_synced_and_all_comes_to_the_server', async () => {
  await fc.assert(fc.asyncProperty(fc.array(step, { minLength: 3, maxLength: 15, size: 'max' }), async (steps) => {
    let app = await App.open();
    for (const one of steps) {
      app = await run(app, one);
      await check(app);
    }
    await app.device.settle();
    await check(app);
    expect(await app.ops()).toEqual([]);
    const rows = Object.fromEntries((await app.notes.toArray()).map((row) => [row.id, row]));
    const server = Object.entries(app.server.rows('notes')).map(([id, payload]) => [id, { ...payload, id }]);
    expect(rows).toEqual(Object.fromEntries(server));
    const { pending } = await app.store.read((tx) => tx.counts());
    expect(pending).toBe(0);
    app.db.close();
  }), { numRuns: Number(process.env.SYNC_EXT_RUNS ?? 40) });
}, 600_000);
