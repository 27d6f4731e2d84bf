/** What the records of a workspace say of its files. Read as the user of the transaction. */
import type { Queryable } from './database.ts';

export interface FileRecord {
  pk: string;
  payload: Record<string, unknown>;
  /** In seconds since 1970. */
  updated_at: number;
}

/** Payloads are parsed here: Postgres fails on one with "\u0000", which JSON may have. */
const page = 100;

/** The hash alone, as the app compares it: `sha256:ABC` and `abc` are the same file. */
export function normalizedHash(hash: string): string {
  return hash
    .trim()
    .replace(/^(sha256|md5):/i, '')
    .trim()
    .toLowerCase();
}

/** The live records of a table after a pk, in byte order of pk. */
export async function* liveRecords(
  connection: Queryable,
  workspaceId: string,
  tableName: string,
  after: string,
  like = '%',
): AsyncGenerator<FileRecord> {
  let isLast = false;
  while (!isLast) {
    const { rows } = await connection.query(
      `SELECT pk, payload, extract(epoch FROM updated_at)::double precision AS updated_at
         FROM sync_ext.current_record
        WHERE workspace_id = $1 AND table_name = $2 AND pk > $3 AND NOT deleted
          AND payload::text LIKE $4
        ORDER BY pk LIMIT $5`,
      [workspaceId, tableName, after, like, page],
    );
    yield* rows as FileRecord[];
    isLast = rows.length < page;
    after = rows.at(-1)?.pk ?? after;
  }
}

/** NULL if the record does not say. */
export function sizeOf({ payload }: FileRecord): number | null {
  const size = payload.size_bytes ?? payload.sizeBytes;
  return typeof size === 'number' && Number.isSafeInteger(size) && size >= 0 ? size : null;
}

/** The hashes that a message or post refers to: a list, or one written as text. */
export function referencedHashes({ payload }: FileRecord): string[] {
  let hashes = payload.file_hashes;
  if (typeof hashes === 'string') {
    try {
      hashes = JSON.parse(hashes);
    } catch {
      return [];
    }
  }
  return Array.isArray(hashes) ? hashes.filter((hash) => typeof hash === 'string') : [];
}
