/** Uploads are announced, so that the files of a workspace stay within its quota. */
import type { UploadIntentConsumptionRequest, UploadIntentReservationRequest } from '../host.ts';
import { ProviderError } from '../error.ts';
import { invalid, workspaceOf } from './arguments.ts';
import { transactionFor, type Database, type Queryable } from './database.ts';
import { liveRecords, normalizedHash, sizeOf } from './files.ts';
import { requireRole } from './roles.ts';

export async function reserveUpload(
  database: Database,
  user: string,
  input: UploadIntentReservationRequest,
): Promise<void> {
  const workspaceId = workspaceOf(input);
  const { intentId, mimeType, sizeBytes, expiresAt, workspaceQuotaBytes: quota } = input;
  if (!intentId) invalid('The intentId must not be empty.');
  if (!isPositive(sizeBytes)) invalid('The sizeBytes must be a positive integer.');
  if (!isPositive(expiresAt)) invalid('The expiresAt must be in seconds since 1970.');
  if (quota !== undefined && !isPositive(quota)) invalid('The quota must be a positive integer.');
  const hash = normalizedHash(input.hash);
  await transactionFor(database, user, async (connection) => {
    await requireRole(connection, workspaceId, 'editor');
    // One reservation of a workspace at a time: each counts those before it.
    await connection.query("SELECT pg_advisory_xact_lock(hashtextextended('or3:' || $1, 0))", [
      workspaceId,
    ]);
    const files = await storedFiles(connection, workspaceId, hash);
    const reserved = await reservedUploads(connection, workspaceId, hash);
    const bytes = files.hasHash || reserved.hasHash ? 0 : sizeBytes;
    if (quota !== undefined && files.bytes + reserved.bytes + bytes > quota) {
      throw new ProviderError('quota_exceeded');
    }
    const { rowCount } = await connection.query(
      `INSERT INTO or3.upload_intent (workspace_id, intent_id, hash, mime_type, size_bytes,
                                      reserved_bytes, expires_at)
       SELECT $1, $2, $3, $4, $5, $6, to_timestamp($7) WHERE to_timestamp($7) > now()`,
      [workspaceId, intentId, hash, mimeType, sizeBytes, bytes, expiresAt],
    );
    if (rowCount === 0) invalid('The expiresAt must be in the future.');
  });
}

export async function consumeUpload(
  database: Database,
  user: string,
  input: UploadIntentConsumptionRequest,
): Promise<void> {
  const { intentId, mimeType, sizeBytes, storageId } = input;
  await close(
    database,
    user,
    workspaceOf(input),
    `UPDATE or3.upload_intent SET consumed_at = now(), storage_id = $6
      WHERE workspace_id = $1 AND intent_id = $2 AND hash = $3 AND mime_type = $4 AND size_bytes = $5
        AND consumed_at IS NULL AND cancelled_at IS NULL AND expires_at > now()`,
    [intentId, normalizedHash(input.hash), mimeType, sizeBytes, storageId],
  );
}

export async function cancelUpload(
  database: Database,
  user: string,
  input: { workspaceId: string; intentId: string },
): Promise<void> {
  await close(
    database,
    user,
    workspaceOf(input),
    `UPDATE or3.upload_intent SET cancelled_at = now()
      WHERE workspace_id = $1 AND intent_id = $2 AND consumed_at IS NULL AND cancelled_at IS NULL`,
    [input.intentId],
  );
}

async function close(
  database: Database,
  user: string,
  workspaceId: string,
  update: string,
  values: unknown[],
): Promise<void> {
  await transactionFor(database, user, async (connection) => {
    await requireRole(connection, workspaceId, 'editor');
    const { rowCount } = await connection.query(update, [workspaceId, ...values]);
    if (rowCount !== 1) throw new ProviderError('upload_not_active');
  });
}

interface Use {
  bytes: number;
  hasHash: boolean;
}

async function storedFiles(connection: Queryable, workspaceId: string, hash: string): Promise<Use> {
  const use: Use = { bytes: 0, hasHash: false };
  for await (const file of liveRecords(connection, workspaceId, 'file_meta', '')) {
    use.bytes += sizeOf(file) ?? 0;
    use.hasHash ||= normalizedHash(file.pk) === hash;
  }
  return use;
}

async function reservedUploads(
  connection: Queryable,
  workspaceId: string,
  hash: string,
): Promise<Use> {
  const { rows } = await connection.query(
    `SELECT coalesce(sum(reserved_bytes), 0)::double precision AS bytes,
            coalesce(bool_or(hash = $2 AND reserved_bytes > 0), false) AS has_hash
       FROM or3.upload_intent
      WHERE workspace_id = $1 AND consumed_at IS NULL AND cancelled_at IS NULL AND expires_at > now()`,
    [workspaceId, hash],
  );
  return { bytes: rows[0].bytes, hasHash: rows[0].has_hash };
}

function isPositive(given: number): boolean {
  return Number.isSafeInteger(given) && given > 0;
}
