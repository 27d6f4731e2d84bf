import 'fake-indexeddb/auto';
import Dexie from 'dexie';
import { test } from 'vitest';
import { DexieStore } from '../../src/store/dexie.ts';
import { MemoryStore } from '../../src/store/memory.ts';
import { testStore } from '../../src/testing.ts';

testStore('MemoryStore', () => ({ store: new MemoryStore() }), test);

let databases = 0;
const capture = { capture: async () => {}, captured: () => {}, blocked: () => {}, closed: () => {} };
const schemas = { 'with keys inside': { notes: 'id, n', files: 'id' }, 'with keys outside': { notes: ', n', files: '' } };

for (const [kind, stores] of Object.entries(schemas)) {
  testStore(`DexieStore ${kind}`, () => {
    const name = `kit ${++databases}`;
    const open = () => {
      const db = new Dexie(name);
      db.version(1).stores(stores);
      return new DexieStore(db, new Map([['notes', {}], ['files', {}]]), capture);
    };
    return { store: open(), reopen: async () => open() };
  }, test);
}
