import type { RxCollection } from 'rxdb';
import { Clock } from '../rules/author.ts';
import { type Doc, type Documents, type SyncField, clockOf } from './document.ts';

/** Makes the revisions of edits. */
export class Stamps {
  readonly deviceId: string;
  readonly #clock: Clock;

  constructor(deviceId: string) {
    this.deviceId = deviceId;
    this.#clock = new Clock(deviceId, null);
  }

  /** Of an edit whose author knew the record with this clock. */
  next(known: number): SyncField {
    return { clock: known + 1, hlc: this.#clock.newHlc(), opId: this.#clock.newOpId() };
  }

  /** Of an edit of a document. */
  over(old: SyncField | undefined): SyncField {
    if (old && this.isOwn(old.hlc)) this.#clock.observe(old.hlc);
    const { rest } = old ?? {};
    return { ...this.next(clockOf(old)), ...(rest && { rest }) };
  }

  isOwn(hlc: string): boolean {
    return this.#clock.isOwn(hlc);
  }
}

const stamped = new WeakMap<RxCollection, Promise<Stamps>>();

/** Lets each edit of a collection have its revision from the moment it is made: it is stored in
 * the document, so that what is pushed again, after whatever happened, is the same op. */
export function stampEdits(collection: RxCollection, documents: Documents): Promise<Stamps> {
  const known = stamped.get(collection);
  if (known) return known;
  const stamps = collection.database.storageToken.then((token) => new Stamps(`${token}:${collection.name}`));
  stamped.set(collection, stamps);
  collection.preInsert(async (data: Doc) => {
    documents.payloadOf(data);
    documents.setSync(data, (await stamps).over(undefined));
  }, false);
  collection.preSave(async (data: Doc, before: unknown) => {
    const old = before as Doc;
    const sync = documents.syncOf(old);
    const isEdit = !documents.isSame(documents.withSync(data, sync), old);
    documents.setSync(data, isEdit ? (await stamps).over(sync) : sync);
  }, false);
  collection.preRemove(async (data: Doc) => {
    documents.setSync(data, (await stamps).over(documents.syncOf(data)));
  }, false);
  return stamps;
}
