import type { RxCollection, RxConflictHandler } from 'rxdb';
import { type Doc, type Documents, clockOf } from './document.ts';
import type { Puller } from './pull.ts';
import type { Pusher } from './push.ts';
import type { Stamps } from './stamps.ts';

export interface Guards {
  documents: Documents;
  stamps: Promise<Stamps>;
  puller: Puller;
  pusher: Pusher;
}

const handlers = new WeakMap<RxCollection, RxConflictHandler<Doc>>();

/** Adds to the app's conflict handler what only the replication knows. */
export function guardConflicts(collection: RxCollection, { documents, stamps, puller, pusher }: Guards): void {
  const app = handlers.get(collection) ?? (collection.conflictHandler as RxConflictHandler<Doc>);
  handlers.set(collection, app);
  const { syncOf } = documents;
  collection.conflictHandler = {
    isEqual: (a, b, context) => {
      // RxDB pulls while it pushes, and would put back what was pulled before a push.
      if (context === 'downstream-check-if-equal-1' && puller.isOutdated(a as Doc)) return true;
      // RxDB passes over what it pulls of a document that was edited, though the edit was taken back.
      if (context === 'upstream-check-if-equal' && syncOf(a)?.opId !== syncOf(b)?.opId) return false;
      return app.isEqual(a, b, context);
    },
    resolve: async (input, context) => {
      const { realMasterState, newDocumentState } = input;
      if (pusher.takeGiven(newDocumentState)) return realMasterState;
      const resolved = await app.resolve(input, context);
      const real = syncOf(realMasterState);
      const same = documents.withSync(resolved, real);
      if (documents.isSame(same, realMasterState)) return same;
      const known = Math.max(clockOf(real), clockOf(syncOf(newDocumentState)));
      return documents.withSync(resolved, { ...(await stamps).next(known), ...(real?.rest && { rest: real.rest }) });
    },
  } satisfies RxConflictHandler<Doc>;
}
