import { SyncError } from '../error.ts';
import { isEqual } from '../rules/json.ts';
import type { View } from '../rules/view.ts';
import type { Op, PushReply, PushResult, Winner } from '../wire.ts';
import { type Doc, type Documents, type SyncField, clockOf, newestOf, viewOf } from './document.ts';
import type { Stamps } from './stamps.ts';

/** As RxDB hands it to a push handler. */
export interface Row {
  newDocumentState: Doc;
  /** What the server has, as far as is known here; undefined: nothing. */
  assumedMasterState?: Doc | undefined;
}

/** An edit that the server does not accept. The document becomes what the server has. */
export interface Refusal<D = Doc> {
  /** As it was wanted. */
  document: D;
  /** As it becomes. */
  master: D;
  /** VALIDATION_ERROR, CONSTRAINT, REJECTED and others, as in the table of results. */
  code: string;
  message: string;
  sqlState?: string;
  constraint?: string;
}

/** An op for a row, stored only if the record's newest entry is the expected one. */
interface Attempt {
  row: Row;
  op: Op & { expected: string };
  /** All that was expected by it and those before it. */
  tried: ReadonlySet<string>;
  /** The document is what the server is assumed to have: whether it does is asked. */
  isQuestion?: boolean;
}

type Refused = Pick<PushResult, 'errorCode' | 'error' | 'sqlState' | 'constraint' | 'winner'>;

type Verdict = 'done' | { again: Attempt } | { conflict: Doc } | { refused: Refused } | { later: string };

/** What is refused for now is pushed again so often, each time after RxDB's pause. */
const PATIENCE = 12;

export interface PusherOptions {
  tableName: string;
  documents: Documents;
  stamps: Promise<Stamps>;
  call<T>(name: string, body: unknown): Promise<T>;
  tell(refusal: Refusal): void;
  /** It is known what a record was at a version. */
  answered(pk: string, version: number): void;
}

/** Pushes documents. RxDB repeats rows until they are answered, and after a restart what has become
 * of them; the conditions see to it that nothing is stored twice, and nothing over what was not
 * seen. */
export class Pusher {
  readonly #options: PusherOptions;
  /** Documents that become what the server has, without asking the app. */
  readonly #given = new Set<string>();
  readonly #impatience = new Map<string, number>();

  constructor(options: PusherOptions) {
    this.#options = options;
  }

  /** Whether the document becomes what the server has, without asking the app; told once. */
  takeGiven(doc: Doc): boolean {
    return this.#given.delete(this.#options.documents.pkOf(doc));
  }

  /** Returns the documents that the server has where it has others than were assumed. */
  async push(rows: Row[]): Promise<Doc[]> {
    const { documents } = this.#options;
    const stamps = await this.#options.stamps;
    const conflicts: Doc[] = [];
    const refused: [Row, Refused][] = [];
    let later: string | undefined;
    let open = rows.flatMap((row) => {
      this.#given.delete(documents.pkOf(row.newDocumentState));
      try {
        return [this.#first(row, stamps)];
      } catch (error) {
        refused.push([row, { errorCode: 'INVALID_RECORD', error: (error as Error).message }]);
        return [];
      }
    });
    while (open.length > 0) {
      const results = await this.#send(open.map(({ op }) => op));
      const again: Attempt[] = [];
      for (const [i, attempt] of open.entries()) {
        const verdict = this.#judge(attempt, results[i]!, stamps);
        if (verdict === 'done') this.#impatience.delete(attempt.op.pk);
        else if ('again' in verdict) again.push(verdict.again);
        else if ('conflict' in verdict) {
          conflicts.push(verdict.conflict);
          if (attempt.isQuestion) this.#given.add(attempt.op.pk);
        } else if ('later' in verdict) later = verdict.later;
        else refused.push([attempt.row, verdict.refused]);
      }
      open = again;
    }
    // RxDB repeats all rows: those that were stored are replays then.
    if (later !== undefined) throw new SyncError('CONSTRAINT', later);
    const refusals = await this.#refusals(refused, stamps);
    for (const refusal of refusals) {
      const pk = documents.pkOf(refusal.document);
      this.#impatience.delete(pk);
      this.#given.add(pk);
      this.#options.tell(refusal);
    }
    return [...conflicts, ...refusals.map(({ master }) => master)];
  }

  #first(row: Row, stamps: Stamps): Attempt {
    const { documents } = this.#options;
    const { newDocumentState: doc, assumedMasterState: assumed } = row;
    if (assumed && documents.isSame(doc, assumed)) {
      return this.#asked(row, stamps);
    }
    const own = documents.syncOf(doc);
    const known = documents.syncOf(assumed);
    // What has passed no hook has the revision of what it was made from, or none.
    const isStamped = own && stamps.isOwn(own.hlc) && !own.newest && own.opId !== known?.opId
      && own.clock > clockOf(known);
    const sync = isStamped ? own : stamps.next(Math.max(clockOf(known), clockOf(own)));
    return this.#attempt(row, sync, known ? newestOf(known) : 'none', [], stamps);
  }

  #attempt(row: Row, { clock, hlc, opId }: SyncField, expected: string, tried: Iterable<string>, { deviceId }: Stamps): Attempt {
    const { documents, tableName } = this.#options;
    const pk = documents.pkOf(row.newDocumentState);
    const payload = documents.payloadOf(row.newDocumentState);
    const stamp = { clock, hlc, opId, deviceId };
    const op = payload
      ? { tableName, operation: 'put' as const, pk, payload, expected, stamp }
      : { tableName, operation: 'delete' as const, pk, expected, stamp };
    return { row, op, tried: new Set([...tried, expected]) };
  }

  #judge(attempt: Attempt, result: PushResult, stamps: Stamps): Verdict {
    const { documents } = this.#options;
    const { row, op, tried } = attempt;
    const { success, errorCode } = result;
    // Others may have patched it since, and RxDB has passed over that.
    if (success && result.applied && result.replayed) return { again: this.#asked(row, stamps) };
    if ((success && result.applied) || (attempt.isQuestion && errorCode !== 'RECORD_CONFLICT')) return 'done';
    const again = (sync: SyncField, expected: string): Verdict => (
      { again: this.#attempt(row, sync, expected, tried, stamps) }
    );
    if (errorCode === 'CONFLICT' && op.stamp.opId === documents.syncOf(row.newDocumentState)?.opId) {
      // It was pushed, and then changed without passing a hook.
      return again(stamps.next(op.stamp.clock), op.expected);
    }
    if (!success && errorCode !== 'RECORD_CONFLICT') return this.#notNow(op.pk, result);
    const master = result.winner ?? result.current;
    if (!master) {
      // The server was restored to a time before this record.
      return row.newDocumentState._deleted || tried.has('none') ? 'done' : again(op.stamp, 'none');
    }
    // All payloads together were too large for one reply.
    if (master.kind === 'put' && !master.payload) return { again: attempt };
    const { view, newest } = viewOf(master);
    if (isEqual(view.payload, documents.payloadOf(row.newDocumentState))) return 'done';
    const expected = newest.find((opId) => !tried.has(opId));
    if (expected && !success && this.#isKnown(row, master, view, stamps)) {
      return again(op.stamp.clock > view.clock ? op.stamp : stamps.next(view.clock), expected);
    }
    // An op that was stored, and lost to a delete of which nobody here has known, is made again.
    const isUnknowing = op.expected === 'none' && !view.payload && master.serverVersion < (result.serverVersion ?? 0);
    if (expected && isUnknowing) return again(stamps.next(view.clock), expected);
    return { conflict: documents.of(op.pk, view, row.newDocumentState) };
  }

  /** Whether the author of a row has seen what the server has: an own edit, whose answer was lost
   * or came back under another opId, or a record that is as it was assumed, whoever wrote it. */
  #isKnown({ assumedMasterState: assumed }: Row, { fields, revision }: Winner, { payload }: View, stamps: Stamps): boolean {
    if (!fields && stamps.isOwn(revision.hlc)) return true;
    return assumed !== undefined && isEqual(payload, this.#options.documents.payloadOf(assumed));
  }

  #notNow(pk: string, result: PushResult): Verdict {
    const times = (this.#impatience.get(pk) ?? 0) + 1;
    this.#impatience.set(pk, times);
    return result.retry && times <= PATIENCE ? { later: result.error ?? '' } : { refused: result };
  }

  async #refusals(refused: [Row, Refused][], stamps: Stamps): Promise<Refusal[]> {
    const isTold = ({ winner }: Refused) => winner !== undefined && (winner.kind === 'delete' || winner.payload !== undefined);
    // What is assumed may be out of date: RxDB passes over what is pulled of a document with edits.
    const asked = refused.filter(([, result]) => !isTold(result));
    const answers = asked.length > 0 ? await this.#send(asked.map(([row]) => this.#question(row, stamps))) : [];
    return refused.map(([row, result]) => {
      const { newDocumentState: document, assumedMasterState: assumed } = row;
      const { errorCode: code = 'REFUSED', error: message = '', sqlState, constraint } = result;
      const answer = answers[asked.findIndex(([other]) => other === row)];
      const current = isTold(result) ? result.winner : answer?.current;
      const isUnknown = answer?.errorCode === 'RECORD_CONFLICT' && !current;
      const { documents } = this.#options;
      const master = current && isTold({ winner: current }) ? documents.of(documents.pkOf(document), viewOf(current).view, assumed ?? document)
        : ((!isUnknown && assumed) || documents.withSync({ ...document, _deleted: true }, undefined));
      return { document, master, code, message, ...(sqlState && { sqlState }), ...(constraint && { constraint }) };
    });
  }

  #asked(row: Row, stamps: Stamps): Attempt {
    return { row, op: this.#question(row, stamps), tried: new Set(), isQuestion: true };
  }

  /** An op whose condition cannot hold: it is answered with what the server has. */
  #question({ newDocumentState }: Row, stamps: Stamps): Attempt['op'] {
    const { documents, tableName } = this.#options;
    const stamp = { ...stamps.next(0), deviceId: stamps.deviceId };
    const pk = documents.pkOf(newDocumentState);
    return { tableName, operation: 'delete', pk, expected: stamp.opId, stamp };
  }

  async #send(ops: Op[]): Promise<PushResult[]> {
    try {
      const { results, serverVersion: head } = await this.#options.call<PushReply>('push', ops);
      if (results?.length !== ops.length) throw new SyncError('MALFORMED', 'not a reply to this push');
      for (const [i, { pk }] of ops.entries()) {
        const { applied, serverVersion, winner, current } = results[i]!;
        this.#options.answered(pk, (applied ? serverVersion : (winner ?? current)?.serverVersion) ?? head);
      }
      return results;
    } catch (error) {
      if (!(error instanceof SyncError) || error.remedy !== 'content') throw error;
      if (ops.length > 1) {
        const half = Math.ceil(ops.length / 2);
        return [...await this.#send(ops.slice(0, half)), ...await this.#send(ops.slice(half))];
      }
      const { code, message, detail } = error;
      return [{ opId: ops[0]!.stamp.opId, success: false, errorCode: code, error: detail ? `${message}: ${detail}` : message }];
    }
  }
}
