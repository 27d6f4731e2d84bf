/** The app's questions about the files of a workspace, answered from its current records. */
import type {
  CanonicalStorageQueryRequest,
  CanonicalStorageQueryResponse,
  CanonicalStorageRecord,
} from '../host.ts';
import { invalid, workspaceOf } from './arguments.ts';
import { transactionFor, type Database, type Queryable } from './database.ts';
import { liveRecords, normalizedHash, referencedHashes, sizeOf } from './files.ts';
import { requireRole } from './roles.ts';

interface Query {
  connection: Queryable;
  workspaceId: string;
  /** Only this one, normalized; NULL: all. */
  hash: string | null;
  /** In seconds since 1970. */
  now: number;
}

/** A record with its place in the order of its kind. */
type Placed = [place: string[], record: CanonicalStorageRecord];

/** Of each kind: its records after a place, in order. */
const sources: Record<
  CanonicalStorageQueryRequest['kind'],
  (query: Query, after: string[]) => AsyncGenerator<Placed>
> = { live_metadata: metadata, reference_edges: references, active_reservations: reservations };

const limits = { byDefault: 100, most: 500 };

export async function queryStorage(
  database: Database,
  user: string,
  input: CanonicalStorageQueryRequest,
): Promise<CanonicalStorageQueryResponse> {
  const workspaceId = workspaceOf(input.scope);
  const source = Object.hasOwn(sources, input.kind)
    ? sources[input.kind]
    : invalid('The kind is unknown.');
  const hash = input.hash === undefined ? null : normalizedHash(input.hash);
  if (hash === '') invalid('The hash must not be empty.');
  const after = input.cursor === undefined ? [] : placeOf(input.cursor, input.kind, hash);
  const limit = limitOf(input.limit);
  return await transactionFor(database, user, async (connection) => {
    await requireRole(connection, workspaceId, 'viewer');
    const now = input.now ?? Date.now() / 1000;
    const items: CanonicalStorageRecord[] = [];
    let last: string[] = [];
    for await (const [place, record] of source({ connection, workspaceId, hash, now }, after)) {
      if (items.length === limit) {
        return { items, hasMore: true, nextCursor: cursorOf(last, input.kind, hash) };
      }
      items.push(record);
      last = place;
    }
    return { items, hasMore: false };
  });
}

async function* metadata(
  { connection, workspaceId, hash }: Query,
  [after]: string[],
): AsyncGenerator<Placed> {
  for await (const file of liveRecords(connection, workspaceId, 'file_meta', after ?? '')) {
    const own = normalizedHash(file.pk);
    const sizeBytes = sizeOf(file);
    if ((hash !== null && own !== hash) || sizeBytes === null) continue;
    const storageId = file.payload.storage_id ?? file.payload.storageId;
    const record: CanonicalStorageRecord = {
      kind: 'metadata',
      hash: own,
      sizeBytes,
      updatedAt: Math.floor(file.updated_at),
    };
    if (typeof storageId === 'string' && storageId !== '') record.storageId = storageId;
    yield [[file.pk], record];
  }
}

async function* references(
  { connection, workspaceId, hash }: Query,
  after: string[],
): AsyncGenerator<Placed> {
  const [afterTable = 'messages', afterId = '', afterHash = ''] = after;
  for (const sourceTable of ['messages', 'posts'] as const) {
    if (sourceTable < afterTable) continue;
    const isFirst = sourceTable === afterTable;
    // The record of the last edge again: it may have more.
    if (isFirst && afterHash !== '') {
      yield* edges(
        await recordAt(connection, workspaceId, sourceTable, afterId),
        sourceTable,
        hash,
        afterHash,
      );
    }
    const records = liveRecords(
      connection,
      workspaceId,
      sourceTable,
      isFirst ? afterId : '',
      '%file_hashes%',
    );
    for await (const record of records) yield* edges(record, sourceTable, hash, '');
  }
}

type Referring = { pk: string; payload: Record<string, unknown> };

function* edges(
  record: Referring | undefined,
  sourceTable: 'messages' | 'posts',
  hash: string | null,
  after: string,
): Generator<Placed> {
  if (record === undefined) return;
  const hashes = new Set(referencedHashes({ ...record, updated_at: 0 }).map(normalizedHash));
  for (const own of [...hashes].sort()) {
    if (own === '' || own <= after || (hash !== null && own !== hash)) continue;
    yield [
      [sourceTable, record.pk, own],
      { kind: 'reference', hash: own, sourceTable, sourceId: record.pk },
    ];
  }
}

async function recordAt(
  connection: Queryable,
  workspaceId: string,
  tableName: string,
  pk: string,
): Promise<Referring | undefined> {
  const { rows } = await connection.query(
    `SELECT pk, payload FROM sync_ext.current_record
      WHERE workspace_id = $1 AND table_name = $2 AND pk = $3 AND NOT deleted`,
    [workspaceId, tableName, pk],
  );
  return rows[0];
}

async function* reservations(
  { connection, workspaceId, hash, now }: Query,
  [after]: string[],
): AsyncGenerator<Placed> {
  const { rows } = await connection.query(
    `SELECT intent_id, hash, reserved_bytes::double precision AS reserved_bytes,
            extract(epoch FROM expires_at)::double precision AS expires_at
       FROM or3.upload_intent
      WHERE workspace_id = $1 AND intent_id > $2 AND ($3::text IS NULL OR hash = $3)
        AND reserved_bytes > 0 AND consumed_at IS NULL AND cancelled_at IS NULL
        AND expires_at > to_timestamp($4)
      ORDER BY intent_id LIMIT $5`,
    [workspaceId, after ?? '', hash, now, limits.most + 1],
  );
  for (const { intent_id, hash, reserved_bytes, expires_at } of rows) {
    yield [
      [intent_id],
      {
        kind: 'reservation',
        reservationId: intent_id,
        hash,
        sizeBytes: reserved_bytes,
        expiresAt: expires_at,
      },
    ];
  }
}

function limitOf(limit: number | undefined): number {
  if (limit === undefined || !Number.isFinite(limit)) return limits.byDefault;
  return Math.max(1, Math.min(Math.floor(limit), limits.most));
}

/** A cursor is bound to the kind and hash that it was made for. */
function cursorOf(place: string[], kind: string, hash: string | null): string {
  return Buffer.from(JSON.stringify([kind, hash, ...place])).toString('base64url');
}

function placeOf(cursor: string, kind: string, hash: string | null): string[] {
  const refuse = () => invalid('The cursor is not one of this query.');
  let parts: unknown;
  try {
    parts = JSON.parse(Buffer.from(cursor, 'base64url').toString());
  } catch {
    return refuse();
  }
  if (!Array.isArray(parts) || parts[0] !== kind || parts[1] !== hash) return refuse();
  const place = parts.slice(2);
  return place.every((part) => typeof part === 'string') ? place : refuse();
}
