import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { PATIENCE } from '../../support/patience.ts';
import type { NewInvite } from '../src/server/invites.ts';
import { failureOf, World } from './support/world.ts';

let world: World;
beforeAll(async () => {
  world = await World.create();
});
afterAll(() => world.end());

const soon = () => Math.floor(Date.now() / 1000) + 600;

async function setUp(given: Partial<NewInvite> = {}) {
  const { owner, workspaceId } = await world.workspace();
  const { inviteId } = await world.store.createInvite({
    workspaceId,
    email: 'Guest@Example.com',
    role: 'editor',
    invitedByUserId: owner,
    expiresAt: soon(),
    tokenHash: 'hash',
    ...given,
  });
  const token = { workspaceId, email: 'guest@example.com ', tokenHash: 'hash' };
  const accept = (providerUserId: string, more: object = {}) =>
    world.store.acceptInviteAndProvisionUser({
      ...token,
      provider: 'invites',
      providerUserId,
      ...more,
    });
  return { owner, workspaceId, inviteId, token, accept };
}

test('a guest becomes a user and a member', async () => {
  const { owner, workspaceId, inviteId, token, accept } = await setUp();
  expect(await world.store.validateInvite(token)).toEqual({ ok: true, role: 'editor' });
  const accepted = await accept('g1', { displayName: 'Guest' });
  expect(accepted).toEqual({
    ok: true,
    userId: expect.any(String),
    workspaceId,
    role: 'editor',
    createdUser: true,
  });
  const { userId } = accepted as { userId: string };
  expect(await world.store.getUser({ provider: 'invites', providerUserId: 'g1' })).toEqual({
    userId,
    email: 'guest@example.com',
    displayName: 'Guest',
  });
  expect(await world.store.getWorkspaceRole({ userId, workspaceId })).toBe('editor');
  // Where the invite led to is where the user begins.
  expect(await world.store.getOrCreateDefaultWorkspace(userId)).toMatchObject({
    workspaceId,
    created: false,
  });
  expect(await world.store.listInvites({ workspaceId })).toEqual([
    {
      id: inviteId,
      workspaceId,
      email: 'guest@example.com',
      role: 'editor',
      status: 'accepted',
      invitedByUserId: owner,
      tokenHash: 'hash',
      expiresAt: expect.any(Number),
      acceptedAt: expect.any(Number),
      acceptedUserId: userId,
      revokedAt: null,
      createdAt: expect.any(Number),
      updatedAt: expect.any(Number),
    },
  ]);
});

test('an invite is used once, also by two at once', async () => {
  const { workspaceId, inviteId, accept } = await setUp();
  // Both have begun before one can use the invite.
  const holder = await world.admin.connect();
  await holder.query('begin');
  await holder.query('select from or3.invite where invite_id = $1 for update', [inviteId]);
  const guests = Promise.all([accept('once-a'), accept('once-b')]);
  await vi.waitUntil(async () => (await world.waiting()) === 2, { timeout: PATIENCE });
  await holder.query('commit');
  holder.release();
  const answers = await guests;
  expect(answers.filter(({ ok }) => ok)).toHaveLength(1);
  expect(answers).toContainEqual({ ok: false, reason: 'already_used' });
  expect(await world.store.listMembers({ workspaceId })).toHaveLength(2);
});

test('a refused guest does not become a user', async () => {
  const { accept } = await setUp();
  expect(await accept('stranger', { tokenHash: 'guess' })).toEqual({
    ok: false,
    reason: 'token_mismatch',
  });
  expect(await accept('stranger', { email: 'other@example.com' })).toEqual({
    ok: false,
    reason: 'not_found',
  });
  expect(await accept('stranger', { workspaceId: 'none' })).toEqual({
    ok: false,
    reason: 'not_found',
  });
  expect(await world.store.getUser({ provider: 'invites', providerUserId: 'stranger' })).toBe(null);
});

test('revoked and expired invites do not hold', async () => {
  const revoked = await setUp();
  const { workspaceId, inviteId, token } = revoked;
  await world.store.revokeInvite({ workspaceId, inviteId });
  expect(await world.store.validateInvite(token)).toEqual({ ok: false, reason: 'revoked' });
  expect(await revoked.accept('late')).toEqual({ ok: false, reason: 'revoked' });
  const expired = await setUp({ expiresAt: 1000 });
  expect(await world.store.validateInvite(expired.token)).toEqual({ ok: false, reason: 'expired' });
  expect(
    await world.store.listInvites({ workspaceId: expired.workspaceId, status: 'expired' }),
  ).toHaveLength(1);
  expect(
    await world.store.listInvites({ workspaceId: expired.workspaceId, status: 'pending' }),
  ).toEqual([]);
  // Revoking changes nothing of one that is over.
  await world.store.revokeInvite({ workspaceId: expired.workspaceId, inviteId: expired.inviteId });
  expect(await world.store.validateInvite(expired.token)).toEqual({ ok: false, reason: 'expired' });
  const unknown = world.store.revokeInvite({ workspaceId, inviteId: expired.inviteId });
  expect(await failureOf(unknown)).toEqual({ code: 'unknown_invite', status: 404 });
});

test('of several invites the one of the token counts', async () => {
  const { owner, workspaceId, inviteId, token } = await setUp();
  await world.store.revokeInvite({ workspaceId, inviteId });
  await world.store.createInvite({
    workspaceId,
    email: 'guest@example.com',
    role: 'viewer',
    invitedByUserId: owner,
    expiresAt: soon(),
    tokenHash: 'second',
  });
  expect(await world.store.validateInvite(token)).toEqual({ ok: false, reason: 'revoked' });
  expect(await world.store.validateInvite({ ...token, tokenHash: 'second' })).toEqual({
    ok: true,
    role: 'viewer',
  });
});

test('an invite takes nothing away from a member', async () => {
  const { owner, workspaceId, token } = await setUp();
  expect(await world.store.consumeInvite({ ...token, acceptedUserId: owner })).toEqual({
    ok: true,
    role: 'owner',
  });
  expect(await world.store.getWorkspaceRole({ userId: owner, workspaceId })).toBe('owner');
});

test('an invite raises the role of a member', async () => {
  const { workspaceId, token } = await setUp();
  const viewer = await world.member(workspaceId, 'viewer');
  await world.store.consumeInvite({ ...token, acceptedUserId: viewer });
  expect(await world.store.getWorkspaceRole({ userId: viewer, workspaceId })).toBe('editor');
});

test('invites to a removed workspace do not hold', async () => {
  const { owner, workspaceId, token, accept } = await setUp();
  await world.store.removeWorkspace({ userId: owner, workspaceId });
  expect(await world.store.validateInvite(token)).toEqual({ ok: false, reason: 'not_found' });
  expect(await accept('removed')).toEqual({ ok: false, reason: 'not_found' });
  const role = 'viewer' as const;
  const another = {
    workspaceId,
    email: 'a@b',
    role,
    invitedByUserId: owner,
    expiresAt: soon(),
    tokenHash: 'h',
  };
  expect(await failureOf(world.store.createInvite(another))).toEqual({
    code: 'unknown_workspace',
    status: 404,
  });
});

test('an invite names a role', async () => {
  expect(await failureOf(setUp({ role: 'admin' as 'owner' }))).toEqual({
    code: 'invalid_request',
    status: 400,
  });
});

test('invites are listed newest first, as many as asked for', async () => {
  const { owner, workspaceId } = await setUp();
  for (const tokenHash of ['2', '3']) {
    await world.store.createInvite({
      workspaceId,
      email: 'x@y',
      role: 'viewer',
      invitedByUserId: owner,
      expiresAt: soon(),
      tokenHash,
    });
  }
  const hashes = async (limit: number) =>
    (await world.store.listInvites({ workspaceId, limit })).map(({ tokenHash }) => tokenHash);
  expect(await hashes(2)).toEqual(['3', '2']);
  expect(await hashes(NaN)).toEqual(['3', '2', 'hash']);
});
