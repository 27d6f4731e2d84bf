import { MemoryStore } from '../store/memory.ts';
import { RUNS_KEPT, keyOf } from '../store/store.ts';
import { type Claims, add, conflict, contentOf, edit, equal, item, newState, pkOf, put, run, shown, sync, TABLES } from './support.ts';

/** What a store keeps, and that a transaction is kept whole or not at all. */
export const transactions: Claims = {
  async is_empty_at_first({ store }) {
    const content = await store.read(contentOf);
    equal(content, await new MemoryStore().read(contentOf));
    equal(await store.read((tx) => tx.state()), undefined);
  },

  async keeps_what_a_transaction_did({ store, reopen }) {
    await store.transaction(async (tx) => {
      await tx.setState(newState({ cursor: 7 }));
      await add(tx, put('a', 1), put('b', 1));
      await add(tx, put('c', 1));
      await tx.putConflict(conflict('a'));
      await tx.stage(0, [item('a', 1)]);
      await tx.log(run(1));
    });
    const content = await store.read(contentOf);
    equal(content.outbox.map(pkOf), ['a', 'b', 'c']);
    equal([content.state!.cursor, content.conflicts.length, content.staged[0]!.length, content.runs.length], [7, 1, 1, 1]);
    if (reopen) equal(await (await reopen()).read(contentOf), content);
  },

  async keeps_nothing_of_a_transaction_that_fails({ store, reopen }) {
    await store.transaction(async (tx) => {
      await tx.setState(newState());
      await add(tx, put('a', 1), put('b', 1));
      await sync(tx, 'b', 1);
      await tx.stage(0, [item('a', 1)]);
      await tx.putConflict(conflict('a'));
      await tx.log(run(1));
    });
    const before = await store.read(contentOf);
    const error = new Error('of the body');
    const failing = store.transaction(async (tx) => {
      await tx.setState(newState({ cursor: 9 }));
      await sync(tx, 'a', 2);
      await edit(tx, 'b', (entries) => [...entries.slice(1), put('b', 2)]);
      await tx.stage(0, []);
      await tx.stage(1, [item('b', 1)]);
      await tx.removeConflict('c');
      await tx.log(run(2));
      throw error;
    });
    equal(await failing.then(() => 'kept', (caught: unknown) => caught === error), true);
    equal(await store.read(contentOf), before);
    const clearing = store.transaction(async (tx) => {
      await tx.clear(TABLES);
      throw error;
    });
    equal(await clearing.then(() => 'kept', (caught: unknown) => caught === error), true);
    equal(await store.read(contentOf), before);
    if (reopen) equal(await (await reopen()).read(contentOf), before);
  },

  async gives_what_the_body_gives({ store }) {
    equal(await store.transaction(async () => 5), 5);
    equal(await store.read(async () => 'five'), 'five');
  },

  async runs_one_transaction_after_the_other({ store }) {
    await store.transaction((tx) => tx.setState(newState()));
    await Promise.all(Array.from({ length: 8 }, () => store.transaction(async (tx) => {
      const state = (await tx.state())!;
      await tx.known([keyOf('notes', 'a')]);
      await tx.setState({ ...state, calls: state.calls + 1 });
    })));
    equal((await store.read((tx) => tx.state()))!.calls, 8);
  },

  async goes_on_after_a_transaction_that_failed({ store }) {
    const failing = store.transaction(async () => {
      throw new Error('of the body');
    });
    await failing.catch(() => {});
    await store.transaction((tx) => tx.setState(newState({ cursor: 3 })));
    equal((await store.read((tx) => tx.state()))!.cursor, 3);
  },

  async sees_in_a_transaction_what_it_has_written({ store }) {
    await store.transaction(async (tx) => {
      await tx.setState(newState({ cursor: 4 }));
      equal((await tx.state())!.cursor, 4);
      await add(tx, put('a', 1));
      equal((await tx.outbox()).map(pkOf), ['a']);
      await sync(tx, 'b', 1);
      const [a, b] = await tx.known([keyOf('notes', 'a'), keyOf('notes', 'b')]);
      equal([a!.entries.length, b!.synced!.version], [1, 1]);
      await edit(tx, 'a', () => []);
      equal(await tx.outbox(), []);
      equal((await tx.rows('notes', null, 9)).map(({ pk }) => pk), ['b']);
    });
  },

  async does_not_keep_hold_of_what_it_was_given({ store }) {
    const state = newState();
    const entry = put('a', 1);
    await store.transaction(async (tx) => {
      await tx.setState(state);
      await add(tx, entry);
    });
    state.cursor = 9;
    entry.op.payload!.n = 9;
    const content = await store.read(contentOf);
    equal([content.state!.cursor, content.outbox[0]!.op.payload!.n], [0, 1]);
    const read = await store.read((tx) => tx.outbox());
    read[0]!.op.payload!.n = 9;
    equal((await store.read((tx) => tx.outbox()))[0]!.op.payload!.n, 1);
  },

  async stages_pages_until_they_are_let_go({ store }) {
    await store.transaction(async (tx) => {
      await tx.stage(0, [item('a', 1), item('b', 1)]);
      await tx.stage(1, [item('c', 1)]);
      await tx.stage(0, [item('d', 1)]);
    });
    await store.read(async (tx) => {
      equal(await tx.staged(0), [item('d', 1)]);
      equal(await tx.staged(1), [item('c', 1)]);
      equal(await tx.staged(2), []);
      equal(await tx.syncedKeys(), []);
    });
    await store.transaction((tx) => tx.unstage());
    equal(await store.read((tx) => tx.staged(0)), []);
    equal(await store.read((tx) => tx.staged(1)), []);
  },

  async keeps_one_conflict_of_an_id({ store }) {
    const [first, other, last] = [conflict('a', 'one'), conflict('a', 'two'), { ...conflict('b', 'one'), theirs: undefined }];
    await store.transaction(async (tx) => {
      for (const one of [first!, other!, last!]) await tx.putConflict(one);
    });
    const byId = async () => (await store.read((tx) => tx.conflicts())).sort((a, b) => (a.id < b.id ? -1 : 1));
    equal(await byId(), [last, other]);
    await store.transaction((tx) => tx.removeConflict('one'));
    await store.transaction((tx) => tx.removeConflict('never'));
    equal(await byId(), [other]);
  },

  async keeps_the_last_runs({ store }) {
    for (let i = 0; i < RUNS_KEPT + 5; i++) await store.transaction((tx) => tx.log(run(i)));
    const runs = await store.read((tx) => tx.runs());
    equal(runs.map(({ at }) => at), Array.from({ length: RUNS_KEPT }, (_, i) => i + 5));
  },

  async clears_everything_but_the_rows_of_other_tables({ store, reopen }) {
    await store.transaction(async (tx) => {
      await tx.setState(newState());
      await sync(tx, 'a', 1);
      await sync(tx, 'f', 1, 'files');
      await add(tx, put('b', 1));
      await tx.stage(0, [item('a', 1)]);
      await tx.putConflict(conflict('a'));
      await tx.log(run(1));
    });
    await store.transaction(async (tx) => {
      await tx.clear(['notes']);
      equal(await tx.outbox(), []);
      equal(await tx.state(), undefined);
    });
    equal(await shown(store, 'files'), { f: 1 });
    await store.transaction((tx) => tx.clear(TABLES));
    const empty = await new MemoryStore().read(contentOf);
    equal(await store.read(contentOf), empty);
    if (reopen) equal(await (await reopen()).read(contentOf), empty);
  },
};
