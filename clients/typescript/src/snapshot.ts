import type { Device } from './device.ts';
import { SyncError, remedyOf } from './error.ts';
import { isNews, markOf } from './rules/answer.ts';
import { inParts } from './rules/group.ts';
import { isEqual } from './rules/json.ts';
import { isTaken, syncedOf } from './rules/snapshot.ts';
import { type Synced, UNKNOWN } from './rules/view.ts';
import { type Changed, type Known, NOTHING, type Staged, type State, type Tx, keyOf } from './store/store.ts';
import type { SnapshotReply } from './wire.ts';

/** Reads what is left of the snapshot that has begun, and stores it. */
export async function finishSnapshot(device: Device, signal: AbortSignal): Promise<void> {
  for (;;) {
    const call = await device.begin();
    const { snapshot, filter: tables, scopes: have, wished: scopes } = call;
    if (!snapshot) return;
    const { isPart } = snapshot;
    if (snapshot.isWhole) {
      await swap(device);
      continue;
    }
    try {
      const { items, nextPageToken, highWatermark, proof } = await device.page<SnapshotReply>('snapshot', {
        pageToken: snapshot.nextPageToken, tables, scopes, ...(isPart && { have, proof: call.proof }),
      }, signal);
      const records = snapshot.records + items.length;
      await device.answered(call, async (tx, state) => {
        await tx.stage(snapshot.pages, items);
        const isWhole = nextPageToken === null;
        state.snapshot = { ...snapshot, pages: snapshot.pages + 1, records, nextPageToken, isWhole, highWatermark, proof };
      }, ['state', 'staged']);
      device.options.tell('progress', { received: records, stored: 0, isOver: false });
    } catch (error) {
      const isOver = remedyOf(error) === 'snapshot' || ((error as SyncError).code === '22023' && snapshot.pages > 0);
      if (!isOver) throw error;
      await device.answered(call, async (tx, state) => {
        await tx.unstage();
        // For a part the state may be too old: it is pulled first.
        state.snapshot = isPart ? null : NOTHING;
      });
    }
  }
}

/** Replaces all that is synced by a whole snapshot, or changes what the lists of scopes differ
 * in, in one transaction. */
async function swap(device: Device): Promise<void> {
  let isOther = false;
  const { scopes: followed, wished } = await device.change(async (tx, state) => {
    const { snapshot } = state;
    if (!snapshot?.isWhole) return false;
    state.snapshot = null;
    state.answered = ++state.calls;
    isOther = !isEqual(state.scopes, state.wished);
    // One below the cursor comes from a standby that lags: the pull tells, which follows.
    if (snapshot.isPart || snapshot.highWatermark >= state.cursor || state.historyLost) {
      await replaceSynced(device, tx, state, snapshot);
      // With a part, what was pulled goes on from where it is.
      if (!snapshot.isPart) state.cursor = snapshot.highWatermark;
      state.proof = snapshot.proof;
      state.scopes = state.wished;
      // What was acknowledged the server may have lost too.
      if (state.historyLost) state.acknowledged = { version: 0, at: 0 };
      state.historyLost = false;
      state.generation++;
      await device.settle(tx, state, snapshot.highWatermark);
    }
    return await tx.unstage();
  });
  if (isOther && followed !== wished) throw new SyncError('SX002', 'standby is behind the snapshot');
  if (isOther) device.options.tell('scopes', { followed, wished });
}

async function replaceSynced(device: Device, tx: Tx, state: State, { pages, records, isPart }: Staged): Promise<void> {
  const isOwn = (hlc: string) => device.author(state).isOwn(hlc);
  const left = new Set(await tx.syncedKeys());
  const isInside = ({ scope }: Synced) => !state.wished || scope === undefined || state.wished.includes(scope);
  // No promise where there is nothing to tell: of many waits for nothing Dexie loses its transaction.
  const taken = ({ key, synced: old }: Known, now?: Synced): Promise<void> | undefined => {
    // Without a loss, a record that is not listed was deleted, and the delete purged.
    if (!old || !(now || (state.historyLost && isInside(old))) || !isTaken(old, now, isOwn)) return;
    const [mine, theirs] = [old.payload, now?.payload ?? null];
    if (!isEqual(mine, theirs)) return device.find(tx, key, old.newest!, { kind: 'restored', mine, theirs });
  };
  let stored = 0;
  for (let page = 0; page < pages; page++) {
    for (const items of inParts(await tx.staged(page))) {
      const changes: Changed[] = [];
      const all = await tx.known(items.map(({ tableName, pk }) => keyOf(tableName, pk)));
      for (const [i, was] of all.entries()) {
        const synced = syncedOf(items[i]!);
        // Of what is listed in two scopes, and beside what stays, the newer counts.
        const isFirst = left.delete(was.key) && !isPart;
        const { version, newest, scope } = was.synced ?? UNKNOWN;
        const isSame = version === synced.version && newest === synced.newest && scope === synced.scope;
        if (isFirst ? isSame : !isNews(was.synced, synced.version)) continue;
        const told = taken(was, synced);
        if (told) await told;
        changes.push({ was, synced });
      }
      await tx.save(changes);
      stored += items.length;
      device.options.tell('progress', { received: records, stored, isOver: false });
    }
  }
  for (const keys of inParts([...left])) {
    const gone = (await tx.known(keys)).filter(({ synced }) => !isPart || !isInside(synced!));
    for (const was of gone) {
      const told = taken(was);
      if (told) await told;
    }
    // A part lists no more of a record with ops than that it is outside.
    await tx.save(gone.map((was) => ({ was, synced: isPart && was.entries[0] ? markOf(was.synced!) : null })));
  }
  device.options.tell('progress', { received: records, stored, isOver: true });
}
