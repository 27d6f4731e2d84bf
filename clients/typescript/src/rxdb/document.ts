import { isEqual, toPayload } from '../rules/json.ts';
import { compare } from '../rules/revision.ts';
import { type View, see } from '../rules/view.ts';
import type { Payload, Revision, Winner } from '../wire.ts';

/** What a document keeps of its record beside the fields that its schema has: the revision of its
 * put or delete, which is that of an own edit from the moment it is made. */
export interface SyncField extends Revision {
  /** The opId of the record's newest entry, if that is a patch. */
  newest?: string;
  /** The highest clock known, if that is of a patch. */
  top?: number;
  /** Fields that the schema does not have; they are sent back as they came. */
  rest?: Payload;
}

/** A document of whatever schema, as RxDB hands it to a replication. */
export type Doc = { [name: string]: any; _deleted: boolean };

/** For the schema of a collection that is replicated. */
export const syncProperty = { type: 'object', additionalProperties: true } as const;

const RESERVED = ['_deleted', '_rev', '_meta', '_attachments'];

export interface Shape {
  primaryPath: string;
  /** The property that keeps a SyncField. */
  field: string;
  /** All properties of the schema. */
  properties: string[];
  required: string[];
}

/** How the documents of a collection show records. */
export class Documents {
  readonly #shape: Shape;
  readonly #names: ReadonlySet<string>;

  constructor(shape: Shape) {
    this.#shape = shape;
    this.#names = new Set(shape.properties.filter((name) => name !== shape.field && !RESERVED.includes(name)));
  }

  pkOf(doc: Doc): string {
    return doc[this.#shape.primaryPath] as string;
  }

  readonly syncOf = (doc: Doc | undefined): SyncField | undefined => (
    doc?.[this.#shape.field] as SyncField | undefined
  );

  withSync(doc: Doc, sync: SyncField | undefined): Doc {
    const { [this.#shape.field]: _, ...rest } = doc;
    return (sync ? { ...rest, [this.#shape.field]: sync } : rest) as Doc;
  }

  /** Changes a document that is about to be written. */
  setSync(doc: Doc, sync: SyncField | undefined): void {
    if (sync) doc[this.#shape.field] = sync;
    else delete doc[this.#shape.field];
  }

  /** The record that a document wants, null if it is deleted. Fails if it is not JSON. */
  payloadOf(doc: Doc): Payload | null {
    if (doc._deleted) return null;
    const fields = Object.entries(doc).filter(([name]) => this.#names.has(name));
    return toPayload({ ...Object.fromEntries(fields), ...this.syncOf(doc)?.rest });
  }

  /** Whether two documents show the same record, whoever wrote it. */
  isSame(a: Doc, b: Doc): boolean {
    return isEqual(this.payloadOf(a), this.payloadOf(b));
  }

  /** The document that shows a record. One that is deleted has the fields of another document:
   * the schema may require them. */
  of(pk: string, { payload, register, newest, clock }: View, fields?: Doc): Doc {
    const sync: SyncField = { clock: register!.clock, hlc: register!.hlc, opId: register!.opId };
    if (newest && newest !== sync.opId) sync.newest = newest;
    if (clock > sync.clock) sync.top = clock;
    const { primaryPath } = this.#shape;
    if (!payload) return this.withSync({ ...fields, [primaryPath]: pk, _deleted: true }, sync);
    const members = Object.entries(payload);
    const rest = members.filter(([name, value]) => !this.#names.has(name) || (name === primaryPath && value !== pk));
    if (rest.length > 0) sync.rest = Object.fromEntries(rest);
    const shown = members.filter(([name]) => this.#names.has(name));
    return this.withSync({ ...Object.fromEntries(shown), [primaryPath]: pk, _deleted: false }, sync);
  }

  /** As much of a document as is needed to delete it. */
  essence(doc: Doc): Doc {
    const names = this.#shape.required.filter((name) => this.#names.has(name));
    return Object.fromEntries(names.map((name) => [name, doc[name]])) as Doc;
  }
}

/** The opId of the record's newest entry. */
export function newestOf({ newest, opId }: SyncField): string {
  return newest ?? opId;
}

export function clockOf(sync: SyncField | undefined): number {
  return sync ? Math.max(sync.clock, sync.top ?? 0) : 0;
}

/** The record that a push reply tells. Of a patched one the newest entry is not told: it is that
 * of one of its revisions, and these are returned too, the likeliest first. */
export function viewOf({ kind, payload, revision, fields, serverVersion: version }: Winner): { view: View; newest: string[] } {
  const revisions = [...Object.values(fields ?? {}), revision].sort((a, b) => compare(b, a));
  const newest = [...new Set(revisions.map(({ opId }) => opId))];
  const synced = { version, register: revision, newest: newest[0]!, payload: kind === 'put' ? payload! : null, clock: revision.clock };
  return { view: see(fields ? { ...synced, fields } : synced, []), newest };
}
