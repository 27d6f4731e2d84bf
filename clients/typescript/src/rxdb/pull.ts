import { type RxStorageInstance, type RxStorageInstanceReplicationState, getChangedDocumentsSince, setCheckpoint } from 'rxdb';
import { SyncError } from '../error.ts';
import { apply } from '../rules/answer.ts';
import { syncedOf } from '../rules/snapshot.ts';
import { type Synced, see } from '../rules/view.ts';
import type { Change, PullReply, Reason, SnapshotReply } from '../wire.ts';
import { type Doc, type Documents, type SyncField, newestOf } from './document.ts';
import type { Member } from './feed.ts';

/** Up to where a collection is pulled. RxDB keeps it, with the documents that it stands for. */
export interface Checkpoint {
  cursor: number;
  proof: string | null;
  /** A snapshot has begun, and is finished, or begun again, before anything is pulled. */
  snapshot: { reason: Reason; token: string | null } | null;
}

export interface Pulled {
  documents: Doc[];
  checkpoint: Checkpoint;
}

export interface PullerOptions {
  tableName: string;
  documents: Documents;
  /** The deviceId of acknowledgements. */
  deviceId: Promise<string>;
  call<T>(name: string, body: unknown): Promise<T>;
  /** The replication, once it is started. */
  state(): { fork: RxStorageInstance<any, any, any>; meta: RxStorageInstance<any, any, any>; replication: RxStorageInstanceReplicationState<any> };
  /** Without pushes RxDB does not keep what the server has. */
  pushes: boolean;
  /** RxDB has stored the answers of all pushes that have begun. */
  pushed(): Promise<unknown>;
  /** There are changes to pull. */
  resync(): void;
  /** All is pulled up to here. */
  pulled(checkpoint: Checkpoint): void;
}

const START: Checkpoint = { cursor: 0, proof: null, snapshot: null };
const MOST_ITEMS = 1000;
/** More changes of a stream are not kept, but pulled. */
const MOST_AHEAD = 1000;
const ACKNOWLEDGE_EVERY = 30_000;
/** An idle device acknowledges after this time, so that it counts as active. */
const HEARTBEAT = 12 * 3600 * 1000;

/** Pulls documents: those that a stream has brought, else by calls. */
export class Puller implements Member {
  readonly tableName: string;
  readonly #options: PullerOptions;
  /** Halved while a reply is too large. */
  #mostItems = MOST_ITEMS;
  /** All changes between two versions, as a stream has brought them. */
  #ahead: { from: number; to: number; proof: string | null; changes: Change[] } | undefined;
  /** RxDB has stored all that was returned to it. */
  #isStored = true;
  /** What is needed to delete documents that RxDB may not have stored yet. */
  readonly #returned = new Map<string, Doc>();
  /** The versions that these documents are of. RxDB asks for more before it has stored them, so
   * there may be several of a record. */
  readonly #versions = new Map<string, number>();
  /** Up to which versions pushes have told of records. */
  readonly #answered = new Map<string, number>();
  /** The snapshot that has begun: the records that it has listed, and the tokens of its pages. RxDB
   * may ask for one of another snapshot again, if the first page of this one was not stored. */
  #snapshot: { listed: Set<string>; tokens: Set<string> } | undefined;
  #acknowledged = { version: 0, at: 0 };

  constructor(options: PullerOptions) {
    this.tableName = options.tableName;
    this.#options = options;
  }

  receive(from: number, { changes, nextCursor: to, proof }: PullReply): void {
    const ours = changes.filter(({ tableName }) => tableName === this.tableName);
    const ahead = this.#ahead;
    if (ahead && from <= ahead.to) {
      this.#ahead = { from: ahead.from, to, proof, changes: [...ahead.changes, ...ours] };
    } else this.#ahead = { from, to, proof, changes: ours };
    if (this.#ahead.changes.length > MOST_AHEAD) this.#ahead = undefined;
    if (ours.length > 0) this.resync();
  }

  resync(): void {
    this.#options.resync();
  }

  /** A push has told what a record was at a version. */
  answered(pk: string, version: number): void {
    this.#answered.set(pk, version);
  }

  /** Whether a push has told of a record what is newer than what was pulled. Revisions do not say
   * it: an edit of which the server had no need keeps its own, and the next one may be lower. */
  isOutdated(pulled: Doc): boolean {
    const { documents } = this.#options;
    const pk = documents.pkOf(pulled);
    return this.#versions.get(stateOf(pk, documents.syncOf(pulled)))! < (this.#answered.get(pk) ?? 0);
  }

  /** The next documents, as many as RxDB wants; fewer only if there are no more. */
  async pull(stored: Checkpoint | undefined, wanted: number): Promise<Pulled> {
    const isFirst = this.#isStored;
    let checkpoint = stored ?? START;
    if (isFirst) {
      this.#returned.clear();
      this.#versions.clear();
      for (const [pk, version] of this.#answered) if (version <= checkpoint.cursor) this.#answered.delete(pk);
    }
    const documents: Doc[] = [];
    const limit = Math.max(1, wanted);
    let isLagging = false;
    let isOver = false;
    while (!isOver && documents.length < limit) {
      if (checkpoint.snapshot) {
        const page = await this.#snapshotPage(checkpoint, checkpoint.snapshot, limit);
        if (page) documents.push(...page.documents);
        else if (isLagging) throw new SyncError('LAGGING', 'the server is behind what was pulled');
        else isLagging = true;
        checkpoint = page ? page.checkpoint : { ...checkpoint, snapshot: null };
        continue;
      }
      const { cursor, proof } = checkpoint;
      const page = this.#take(cursor) ?? await this.#page<PullReply>('pull', { cursor, proof, latest: true }, limit);
      if (page.requiresSnapshot) {
        // The versions of a server that was restored are others.
        if (page.reason !== 'cursor_expired') this.#answered.clear();
        this.#ahead = undefined;
        checkpoint = { ...checkpoint, snapshot: { reason: page.reason!, token: null } };
        continue;
      }
      documents.push(...await this.#documentsOf(page.changes.map((change) => [change.pk, apply(undefined, change), change.serverVersion])));
      checkpoint = { cursor: page.nextCursor, proof: page.proof, snapshot: null };
      // A stream may have brought nothing but that others were edited.
      isOver = !page.hasMore && (page.changes.length > 0 || !page.isAhead);
    }
    this.#isStored = documents.length < wanted;
    // RxDB keeps a checkpoint together with documents only.
    if (documents.length === 0 && isFirst) await setCheckpoint(this.#options.state().replication, 'down', checkpoint);
    if (isOver) {
      this.#options.pulled(checkpoint);
      void this.#acknowledge().catch(() => {});
    }
    // RxDB passes over what it pulls of a document that it pushes, and the answer may be older.
    await this.#options.pushed();
    return { documents, checkpoint };
  }

  /** What the stream has brought after a version. */
  #take(cursor: number): (PullReply & { isAhead?: boolean }) | undefined {
    const ahead = this.#ahead;
    if (!ahead || cursor < ahead.from || cursor >= ahead.to) return undefined;
    const changes = ahead.changes.filter(({ serverVersion }) => serverVersion > cursor);
    this.#ahead = { ...ahead, from: cursor, changes };
    const { to, proof } = ahead;
    return { changes, nextCursor: to, serverVersion: to, proof, hasMore: false, requiresSnapshot: false, isAhead: true };
  }

  async #page<Reply>(name: string, body: object, wanted: number): Promise<Reply & { isAhead?: boolean }> {
    for (;;) {
      const pageLimit = Math.min(wanted, this.#mostItems);
      try {
        return await this.#options.call(name, { ...body, pageLimit, tables: [this.tableName] });
      } catch (error) {
        if (!(error instanceof SyncError) || error.remedy !== 'content' || pageLimit === 1) throw error;
        this.#mostItems = Math.floor(pageLimit / 2);
      }
    }
  }

  /** The documents of a part of a snapshot; nothing if the server is behind what was pulled. */
  async #snapshotPage(checkpoint: Checkpoint, { reason, token }: NonNullable<Checkpoint['snapshot']>, wanted: number): Promise<Pulled | undefined> {
    const again = { documents: [], checkpoint: { ...checkpoint, snapshot: { reason, token: null } } };
    if (token === null) this.#snapshot = { listed: new Set(), tokens: new Set() };
    else if (!this.#snapshot?.tokens.has(token)) return again;
    const { listed, tokens } = this.#snapshot!;
    let reply: SnapshotReply;
    try {
      reply = await this.#page<SnapshotReply>('snapshot', { pageToken: token }, wanted);
    } catch (error) {
      const isOver = error instanceof SyncError && (error.remedy === 'snapshot' || (error.code === '22023' && token !== null));
      if (!isOver) throw error;
      return again;
    }
    const { items, highWatermark, nextPageToken, proof } = reply;
    if (highWatermark < checkpoint.cursor && reason === 'cursor_expired') return undefined;
    for (const { pk } of items) listed.add(pk);
    const documents = await this.#documentsOf(items.map((item) => [item.pk, syncedOf(item), highWatermark]));
    if (nextPageToken !== null) {
      tokens.add(nextPageToken);
      return { documents, checkpoint: { ...checkpoint, snapshot: { reason, token: nextPageToken } } };
    }
    const gone = (await this.#known()).filter((pk) => !listed.has(pk));
    documents.push(...await this.#documentsOf(gone.map((pk) => [pk, undefined, highWatermark])));
    this.#snapshot = undefined;
    return { documents, checkpoint: { cursor: highWatermark, proof, snapshot: null } };
  }

  /** The pks of records that the server had, as far as is known here: by what RxDB has stored, and
   * what was returned to it. Read at the end of a snapshot: a push that was answered while it was
   * read may tell of a record from before it. One from after it is newer than the snapshot. */
  async #known(): Promise<string[]> {
    const { documents, pushes, pushed, state } = this.#options;
    await pushed();
    const { fork, meta } = state();
    const pks = new Set(this.#returned.keys());
    for (let since: unknown; ;) {
      const part = await getChangedDocumentsSince(pushes ? meta : fork, MOST_ITEMS, since);
      if (part.documents.length === 0) return [...pks];
      since = part.checkpoint;
      for (const stored of part.documents) {
        const doc = (pushes ? stored.docData : stored) as Doc | undefined;
        if (doc && !doc._deleted) pks.add(documents.pkOf(doc));
      }
    }
  }

  /** The documents that show records, undefined for one that is not on the server. */
  async #documentsOf(records: [pk: string, synced: Synced | undefined, version: number][]): Promise<Doc[]> {
    const { documents } = this.#options;
    // What has no register is told by a later change.
    const told = records.filter(([, synced]) => !synced || synced.register);
    const isDeleted = ([, synced]: (typeof records)[number]) => !synced?.payload;
    const inStore = told.filter(isDeleted).map(([pk]) => pk).filter((pk) => !this.#returned.has(pk));
    const found = inStore.length > 0 ? await this.#options.state().fork.findDocumentsById(inStore, true) : [];
    const present = new Map<string, Doc>(found.map((doc: Doc) => [documents.pkOf(doc), this.#plain(doc)]));
    return told.flatMap((record) => {
      const [pk, synced, version] = record;
      const old = this.#returned.get(pk) ?? present.get(pk);
      // Nobody here knows it, so there is nothing to delete.
      if (isDeleted(record) && !old) return [];
      const doc = synced ? documents.of(pk, see(synced, []), old) : documents.withSync({ ...old!, _deleted: true }, undefined);
      if (!isDeleted(record)) this.#returned.set(pk, documents.essence(doc));
      this.#versions.set(stateOf(pk, documents.syncOf(doc)), version);
      return [doc];
    });
  }

  #plain({ _meta, _rev, _attachments, ...doc }: Doc): Doc {
    return doc as Doc;
  }

  async #acknowledge(): Promise<void> {
    const stored = this.#options.state().replication.lastCheckpointDoc.down?.checkpointData as Checkpoint | undefined;
    if (!stored || stored.snapshot || stored.cursor === 0) return;
    const { version, at } = this.#acknowledged;
    const age = Date.now() - at;
    if (age < (stored.cursor > version ? ACKNOWLEDGE_EVERY : HEARTBEAT)) return;
    this.#acknowledged = { version: stored.cursor, at: Date.now() };
    await this.#options.call('cursor', { deviceId: await this.#options.deviceId, version: stored.cursor });
  }
}

/** Names a record as it was after one of its entries. */
function stateOf(pk: string, sync: SyncField | undefined): string {
  return `${pk}\0${sync && newestOf(sync)}`;
}
