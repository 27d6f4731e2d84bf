import { afterAll, beforeAll, expect, test } from 'vitest';
import type { UploadIntentReservationRequest } from '../src/host.ts';
import { eventOf, failureOf, op, World } from './support/world.ts';

let world: World;
beforeAll(async () => {
  world = await World.create();
});
afterAll(() => world.end());

const soon = () => Math.floor(Date.now() / 1000) + 600;
const notActive = { code: 'upload_not_active', status: 409 };
const quotaExceeded = { code: 'quota_exceeded', status: 413 };
const invalid = { code: 'invalid_request', status: 400 };

/** A workspace with a file of 40 bytes. */
async function setUp() {
  const { owner, event, workspaceId } = await world.workspace();
  await world.push(
    owner,
    workspaceId,
    op('file_meta', 'sha256:stored', { hash: 'sha256:stored', size_bytes: 40 }),
    op('file_meta', 'sha256:gone', { size_bytes: 1000 }),
    op('file_meta', 'sha256:gone', null, { clock: 2 }),
  );
  const mime = { mimeType: 'text/plain', sizeBytes: 30 };
  let intents = 0;
  return {
    owner,
    event,
    workspaceId,
    reserve: (given: Partial<UploadIntentReservationRequest> = {}) =>
      failureOf(
        world.adapter.reserveUploadIntent(event, {
          ...mime,
          intentId: `i${++intents}`,
          workspaceId,
          hash: `sha256:new${intents}`,
          expiresAt: soon(),
          workspaceQuotaBytes: 100,
          ...given,
        }),
      ),
    consume: (intentId: string, given: object = {}) =>
      failureOf(
        world.adapter.consumeUploadIntent(event, {
          ...mime,
          intentId,
          workspaceId,
          hash: `new${intentId.slice(1)}`,
          storageId: 's',
          ...given,
        }),
      ),
    cancel: (intentId: string) =>
      failureOf(world.adapter.cancelUploadIntent(event, { workspaceId, intentId })),
  };
}

test('an upload is announced and consumed once, as announced', async () => {
  const { reserve, consume, cancel } = await setUp();
  expect(await reserve()).toBe('no error');
  expect(await consume('i1', { hash: 'other' })).toEqual(notActive);
  expect(await consume('i1', { sizeBytes: 31 })).toEqual(notActive);
  expect(await consume('i1', { mimeType: 'text/html' })).toEqual(notActive);
  expect(await consume('i2')).toEqual(notActive);
  // However the hash is written.
  expect(await consume('i1', { hash: ' SHA256:NEW1 ' })).toBe('no error');
  expect(await consume('i1')).toEqual(notActive);
  expect(await cancel('i1')).toEqual(notActive);
});

test('a cancelled upload is over', async () => {
  const { reserve, consume, cancel } = await setUp();
  await reserve();
  expect(await cancel('i1')).toBe('no error');
  expect(await cancel('i1')).toEqual(notActive);
  expect(await consume('i1')).toEqual(notActive);
});

test('files and active uploads count towards the quota', async () => {
  const { reserve, cancel } = await setUp();
  expect(await reserve()).toBe('no error');
  expect(await reserve()).toBe('no error');
  // 40 + 30 + 30 of 100.
  expect(await reserve({ sizeBytes: 1 })).toEqual(quotaExceeded);
  // What is there, or expected, needs no more space.
  expect(await reserve({ hash: 'stored' })).toBe('no error');
  expect(await reserve({ hash: 'new1' })).toBe('no error');
  await cancel('i2');
  expect(await reserve({ sizeBytes: 31 })).toEqual(quotaExceeded);
  expect(await reserve({ sizeBytes: 30 })).toBe('no error');
});

test('reservations at once do not exceed the quota together', async () => {
  const { reserve } = await setUp();
  const answers = await Promise.all(Array.from({ length: 8 }, () => reserve()));
  expect(answers.filter((answer) => answer === 'no error').length).toBe(2);
});

test('an expired upload is not active', async () => {
  const { workspaceId, reserve, consume } = await setUp();
  await reserve();
  await world.admin.query(
    'update or3.upload_intent set expires_at = now() where workspace_id = $1',
    [workspaceId],
  );
  expect(await consume('i1')).toEqual(notActive);
  expect(await reserve({ sizeBytes: 60 })).toBe('no error');
});

test.each([
  { intentId: '' },
  { sizeBytes: 0 },
  { sizeBytes: 1.5 },
  { expiresAt: NaN },
  { expiresAt: 1000 },
  { workspaceQuotaBytes: 0 },
])('%o is refused', async (given) => {
  expect(await (await setUp()).reserve(given)).toEqual(invalid);
});

test('an id is taken once', async () => {
  const { reserve } = await setUp();
  await reserve({ intentId: 'same' });
  expect(await reserve({ intentId: 'same' })).toEqual({ code: 'already_exists', status: 409 });
});

test('viewers and others announce nothing', async () => {
  const { workspaceId } = await setUp();
  for (const userId of [await world.member(workspaceId, 'viewer'), await world.user()]) {
    const announcement = { workspaceId, intentId: 'i', hash: 'h', mimeType: 'm', sizeBytes: 1 };
    const calls = [
      world.adapter.reserveUploadIntent(eventOf(userId), { ...announcement, expiresAt: soon() }),
      world.adapter.consumeUploadIntent(eventOf(userId), { ...announcement, storageId: 's' }),
      world.adapter.cancelUploadIntent(eventOf(userId), announcement),
    ];
    const refused = { code: 'not_a_member', status: 403 };
    expect(await Promise.all(calls.map(failureOf))).toEqual([refused, refused, refused]);
  }
});
