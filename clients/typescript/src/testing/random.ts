import { MemoryStore } from '../store/memory.ts';
import { type Changed, type Known, type Tx, keyOf } from '../store/store.ts';
import { type Claims, contentOf, equal, newState, put, remove, synced } from './support.ts';

/** A store does what the shortest one does. */
export const random: Claims = {
  async does_the_same_as_any_other_store_whatever_is_done({ store, reopen }) {
    const model = new MemoryStore();
    const random = randomFrom(7);
    for (const one of [model, store]) await one.transaction((tx) => tx.setState(newState()));
    for (let i = 0; i < 60; i++) {
      const { doIt, fails } = anything(random, i);
      for (const one of [model, store]) {
        await one.transaction(async (tx) => {
          await doIt(tx);
          if (fails) throw new Error('of the body');
        }).catch((error: Error) => {
          if (error.message !== 'of the body') throw error;
        });
      }
      equal(await store.read(contentOf), await model.read(contentOf));
    }
    if (reopen) equal(await (await reopen()).read(contentOf), await model.read(contentOf));
  },
};

/** Changes some records, in any way that a device may. */
function anything(random: (below: number) => number, i: number): { doIt: (tx: Tx) => Promise<void>; fails: boolean } {
  const pks = [...new Set(Array.from({ length: 1 + random(random(4) === 0 ? 40 : 3) }, () => `n${random(50)}`))];
  const tableName = ['notes', 'notes', 'files', 'tags'][random(4)]!;
  const drafts = pks.map((pk, at) => {
    const n = i * 100 + at;
    return { what: random(7), where: random(5), now: synced(pk, n), added: random(4) === 0 ? remove(pk, n, tableName) : put(pk, n, tableName) };
  });
  const change = (was: Known, at: number): Changed => {
    const { what, where, now, added } = drafts[at]!;
    const { entries } = was;
    const place = Math.min(where, entries.length);
    if (what === 0) return { was, synced: now };
    if (what === 1) return { was, synced: where === 0 ? null : { ...now, payload: null } };
    if (what === 2) return { was, entries: entries.slice(place) };
    if (what === 3) return { was, entries: entries.map((entry) => ({ ...entry, sent: true, ...(where === 0 && { retry: '' }) })) };
    if (what === 4) return { was, synced: now, entries: entries.toSpliced(place, 1, added) };
    if (what === 5) return { was, synced: now, entries: entries.toSpliced(place, 1) };
    return { was, entries: [...entries, added] };
  };
  const doIt = async (tx: Tx) => {
    const known = await tx.known(pks.map((pk) => keyOf(tableName, pk)));
    await tx.save(known.map(change));
    if (i % 10 === 0) await tx.show(pks.map((pk) => keyOf(tableName, pk)));
  };
  return { doIt, fails: random(6) === 0 };
}

/** Whole numbers below a limit, the same ones each time. */
function randomFrom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}
