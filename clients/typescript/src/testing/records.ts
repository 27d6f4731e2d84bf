import type { Synced } from '../rules/view.ts';
import { keyOf } from '../store/store.ts';
import type { Payload } from '../wire.ts';
import { type Claims, add, edit, equal, newState, pkOf, put, remove, shown, sync, synced } from './support.ts';

/** What a store knows of records, and what it shows of them. */
export const records: Claims = {
  async knows_records_in_the_order_that_was_asked_for({ store }) {
    const pks = Array.from({ length: 120 }, (_, i) => `n${(i * 37) % 120}`);
    await store.transaction(async (tx) => {
      await tx.setState(newState());
      for (const pk of pks.slice(0, 60)) await sync(tx, pk, 1);
      await add(tx, ...pks.slice(30, 90).map((pk) => put(pk, 1)));
    });
    for (const some of [pks, pks.slice(20, 40), ['n5'], []]) {
      const known = await store.read((tx) => tx.known(some.map((pk) => keyOf('notes', pk))));
      equal(known.map(({ key }) => key), some.map((pk) => keyOf('notes', pk)));
      for (const [i, { synced, entries }] of known.entries()) {
        const at = pks.indexOf(some[i]!);
        equal([synced !== undefined, entries.map(pkOf)], [at < 60, at >= 30 && at < 90 ? [some[i]] : []]);
      }
    }
  },

  async tells_records_of_the_same_key_in_two_tables_apart({ store }) {
    await store.transaction(async (tx) => {
      await tx.setState(newState());
      await sync(tx, 'a', 1);
      await sync(tx, 'a', 2, 'files');
      await add(tx, put('a', 3, 'files'));
      const [note, file] = await tx.known([keyOf('notes', 'a'), keyOf('files', 'a')]);
      equal([note!.synced!.version, note!.entries.length, file!.synced!.version, file!.entries.length], [1, 0, 2, 1]);
    });
    equal(await shown(store, 'notes'), { a: 1 });
    equal(await shown(store, 'files'), { a: 3 });
  },

  async keeps_keys_of_any_text({ store }) {
    const pks = ['\u{1f600}', '\uffff', 'ü', ' ', 'a\u0001', '__proto__', 'x'.repeat(1024)];
    await store.transaction(async (tx) => {
      await tx.setState(newState());
      for (const pk of pks) {
        await sync(tx, pk, 1);
        await add(tx, put(pk, 2));
      }
    });
    const known = await store.read((tx) => tx.known(pks.map((pk) => keyOf('notes', pk))));
    equal(known.map(({ synced, entries }) => [synced!.version, entries.length]), pks.map(() => [1, 1]));
    equal((await store.read((tx) => tx.rows('notes', null, 99))).map(({ pk }) => pk), pks.toSorted());
  },

  async keeps_scopes_and_marks({ store }) {
    const mark: Synced = { ...synced('b', 2), newest: null, payload: null, left: 's2' };
    await store.transaction(async (tx) => {
      await tx.setState(newState({ scopes: ['p'], wished: null }));
      const [here, left] = await tx.known([keyOf('notes', 'a'), keyOf('notes', 'b')]);
      await tx.save([{ was: here!, synced: { ...synced('a', 1), scope: 'p' } }, { was: left!, synced: mark, entries: [put('b', 1)] }]);
    });
    const [here, left] = await store.read((tx) => tx.known([keyOf('notes', 'a'), keyOf('notes', 'b')]));
    equal([here!.synced!.scope, left!.synced], ['p', mark]);
    const { scopes, wished } = (await store.read((tx) => tx.state()))!;
    equal([scopes, wished], [['p'], null]);
  },

  async keeps_payloads_as_they_are({ store }) {
    const payload = JSON.parse('{"__proto__": {"a": 1}, "constructor": [], "n": 1e300, "t": "\\u0000\\ud83d\\ude00", "d": [[[{}]]], "e": null}') as Payload;
    await store.transaction(async (tx) => {
      await tx.setState(newState());
      const [was] = await tx.known([keyOf('notes', 'a')]);
      const entry = put('a', 2);
      entry.op.payload = payload;
      await tx.save([{ was: was!, synced: { ...synced('a', 1), payload }, entries: [entry] }]);
    });
    const [known] = await store.read((tx) => tx.known([keyOf('notes', 'a')]));
    equal(JSON.stringify(known!.synced!.payload), JSON.stringify(payload));
    equal(JSON.stringify(known!.entries[0]!.op.payload), JSON.stringify(payload));
  },

  async keeps_all_of_what_is_synced({ store }) {
    const revision = { clock: 4, hlc: 'h', opId: 'o' };
    const all: Synced[] = [
      { version: 5, register: revision, newest: 'p', payload: { id: 'n0', n: 1 }, clock: 9, fields: { n: revision } },
      { version: 5, register: revision, newest: 'o', payload: null, clock: 4 },
      { version: 0, register: null, newest: null, payload: null, clock: 3 },
    ];
    await store.transaction(async (tx) => {
      await tx.setState(newState());
      const known = await tx.known(all.map((_, i) => keyOf('notes', `n${i}`)));
      await tx.save(known.map((was, i) => ({ was, synced: all[i]! })));
    });
    const known = await store.read((tx) => tx.known(all.map((_, i) => keyOf('notes', `n${i}`))));
    equal(known.map(({ synced }) => synced), all);
    equal((await store.read((tx) => tx.syncedKeys())).length, 3);
  },

  async leaves_what_a_save_does_not_name({ store }) {
    await store.transaction(async (tx) => {
      await tx.setState(newState());
      await sync(tx, 'a', 1);
      await add(tx, put('a', 2));
    });
    await store.transaction((tx) => sync(tx, 'a', 3));
    equal((await store.read((tx) => tx.outbox())).length, 1);
    await store.transaction((tx) => edit(tx, 'a', () => []));
    const [known] = await store.read((tx) => tx.known([keyOf('notes', 'a')]));
    equal([known!.synced!.version, known!.entries], [3, []]);
    equal(await shown(store, 'notes'), { a: 3 });
  },

  async forgets_what_was_synced({ store }) {
    await store.transaction(async (tx) => {
      await tx.setState(newState());
      await sync(tx, 'a', 1);
      await sync(tx, 'b', 1);
      await add(tx, put('b', 2));
      const known = await tx.known([keyOf('notes', 'a'), keyOf('notes', 'b')]);
      await tx.save(known.map((was) => ({ was, synced: null })));
      equal(await tx.syncedKeys(), []);
    });
    const known = await store.read((tx) => tx.known([keyOf('notes', 'a'), keyOf('notes', 'b')]));
    equal(known.map(({ synced, entries }) => [synced, entries.length]), [[undefined, 0], [undefined, 1]]);
    equal(await shown(store, 'notes'), { b: 2 });
  },

  async shows_the_outbox_over_what_is_synced({ store }) {
    await store.transaction(async (tx) => {
      await tx.setState(newState());
      await sync(tx, 'a', 1);
      await sync(tx, 'b', 1);
      await sync(tx, 'c', 1);
      await add(tx, put('b', 2), remove('c', 2), put('d', 1));
    });
    equal(await shown(store, 'notes'), { a: 1, b: 2, d: 1 });
    await store.transaction(async (tx) => {
      for (const pk of ['b', 'c', 'd']) await edit(tx, pk, () => []);
    });
    equal(await shown(store, 'notes'), { a: 1, b: 1, c: 1 });
  },

  async keeps_what_is_synced_apart_from_what_is_shown({ store }) {
    await store.transaction(async (tx) => {
      await tx.setState(newState());
      await sync(tx, 'a', 1);
    });
    await store.transaction((tx) => add(tx, put('a', 2)));
    const [known] = await store.read((tx) => tx.known([keyOf('notes', 'a')]));
    equal(known!.synced!.payload, { id: 'a', n: 1 });
  },

  async keeps_records_of_tables_that_the_app_does_not_know({ store }) {
    await store.transaction(async (tx) => {
      await tx.setState(newState());
      await sync(tx, 'a', 1, 'tags');
      await add(tx, put('b', 1, 'tags'));
      await tx.show([keyOf('tags', 'a')]);
    });
    const [a, b] = await store.read((tx) => tx.known([keyOf('tags', 'a'), keyOf('tags', 'b')]));
    equal([a!.synced!.payload!.n, b!.entries.length], [1, 1]);
    equal(await store.read((tx) => tx.syncedKeys()), [keyOf('tags', 'a')]);
  },

  async shows_records_again({ store }) {
    await store.transaction(async (tx) => {
      await tx.setState(newState());
      await sync(tx, 'a', 1);
      await add(tx, remove('b', 1), put('c', 1));
      await tx.show(['a', 'b', 'c', 'never'].map((pk) => keyOf('notes', pk)));
    });
    equal(await shown(store, 'notes'), { a: 1, c: 1 });
  },

  async gives_rows_in_parts_in_the_order_of_their_keys({ store }) {
    const pks = Array.from({ length: 25 }, (_, i) => `n${i}`);
    await store.transaction(async (tx) => {
      await tx.setState(newState());
      await add(tx, ...pks.map((pk, i) => put(pk, i)), put('z', 1, 'files'));
    });
    const found: string[] = [];
    for (let after: string | null = null; ;) {
      const rows = await store.read((tx) => tx.rows('notes', after, 10));
      if (rows.length === 0) break;
      found.push(...rows.map(({ pk }) => pk));
      after = rows.at(-1)!.pk;
    }
    equal(found, pks.toSorted());
  },
};
