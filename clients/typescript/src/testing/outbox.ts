import { keyOf } from '../store/store.ts';
import { type Claims, add, edit, equal, nOf, newState, pkOf, put, shown, sync, synced } from './support.ts';

/** The outbox, in the order in which its ops were made. */
export const outbox: Claims = {
  async keeps_the_order_in_which_ops_were_made({ store }) {
    await store.transaction(async (tx) => {
      await tx.setState(newState());
      await add(tx, put('a', 1), put('b', 2), put('a', 3));
    });
    await store.transaction((tx) => add(tx, put('c', 4), put('a', 5)));
    equal((await store.read((tx) => tx.outbox())).map(nOf), [1, 2, 3, 4, 5]);
    equal((await store.read((tx) => tx.known([keyOf('notes', 'a')])))[0]!.entries.map(nOf), [1, 3, 5]);
  },

  async puts_a_new_entry_in_the_place_of_one_that_leaves({ store }) {
    await store.transaction(async (tx) => {
      await tx.setState(newState());
      await add(tx, put('a', 1), put('b', 2), put('c', 3));
    });
    await store.transaction((tx) => edit(tx, 'a', () => [put('a', 9)]));
    await store.transaction((tx) => edit(tx, 'b', (entries) => [...entries, put('b', 8)]));
    equal((await store.read((tx) => tx.outbox())).map(nOf), [9, 2, 3, 8]);
  },

  async changes_an_entry_where_it_is({ store }) {
    await store.transaction(async (tx) => {
      await tx.setState(newState());
      await add(tx, put('a', 1), put('b', 2), put('a', 3));
    });
    await store.transaction((tx) => edit(tx, 'a', ([first, last]) => [{ ...first!, sent: true, answered: 7 }, last!]));
    const outbox = await store.read((tx) => tx.outbox());
    equal(outbox.map(({ sent, answered, op }) => [op.payload!.n, sent, answered]), [[1, true, 7], [2, false, undefined], [3, false, undefined]]);
  },

  async lets_entries_leave_and_lets_others_take_their_turn({ store }) {
    await store.transaction(async (tx) => {
      await tx.setState(newState());
      await add(tx, ...Array.from({ length: 250 }, (_, i) => put(`n${i % 50}`, i)));
    });
    await store.transaction(async (tx) => {
      const known = await tx.known(Array.from({ length: 50 }, (_, i) => keyOf('notes', `n${i}`)));
      await tx.save(known.map((was) => ({ was, entries: was.entries.slice(1, -1) })));
      await add(tx, put('n0', 999));
    });
    const outbox = await store.read((tx) => tx.outbox());
    equal(outbox.map(nOf), [...Array.from({ length: 150 }, (_, i) => i + 50), 999]);
  },

  async saves_entries_that_were_read_with_the_outbox({ store }) {
    await store.transaction(async (tx) => {
      await tx.setState(newState());
      await add(tx, put('a', 1), put('b', 2));
    });
    await store.transaction(async (tx) => {
      const [a] = await tx.outbox();
      await tx.save([{ was: { key: keyOf('notes', 'a'), entries: [a!] }, entries: [{ ...a!, sent: true }], synced: synced('a', 1) }]);
    });
    equal((await store.read((tx) => tx.outbox())).map(({ sent }) => sent), [true, false]);
    await store.transaction(async (tx) => {
      const [a] = await tx.outbox();
      await tx.save([{ was: { key: keyOf('notes', 'a'), entries: [a!] }, entries: [] }]);
    });
    equal((await store.read((tx) => tx.outbox())).map(pkOf), ['b']);
  },

  async counts_the_ops_and_those_that_were_refused_for_now({ store }) {
    await store.transaction(async (tx) => {
      await tx.setState(newState());
      await add(tx, put('a', 1), put('b', 2), put('a', 3), put('c', 4));
      equal(await tx.counts(), { pending: 4, blocked: 0 });
      await edit(tx, 'a', (entries) => entries.map((entry) => ({ ...entry, retry: '' })));
      await edit(tx, 'b', (entries) => entries.map((entry) => ({ ...entry, retry: 'no parent' })));
    });
    equal(await store.read((tx) => tx.counts()), { pending: 4, blocked: 3 });
    await store.transaction(async (tx) => {
      await edit(tx, 'a', ([{ retry: _, ...first }]) => [first]);
      await edit(tx, 'c', () => []);
    });
    equal(await store.read((tx) => tx.counts()), { pending: 2, blocked: 1 });
  },

  async saves_a_record_twice_in_a_transaction({ store }) {
    await store.transaction(async (tx) => {
      await tx.setState(newState());
      await add(tx, put('a', 1));
    });
    await store.transaction(async (tx) => {
      await edit(tx, 'a', ([entry]) => [{ ...entry!, sent: true }]);
      await edit(tx, 'a', (entries) => [...entries, put('a', 2)]);
      await sync(tx, 'a', 3);
      await edit(tx, 'a', (entries) => entries.slice(1));
    });
    equal((await store.read((tx) => tx.outbox())).map(nOf), [2]);
    equal(await shown(store, 'notes'), { a: 2 });
  },
};
