import { afterAll, beforeAll, expect, test } from 'vitest';
import type { WorkspaceRole } from '../src/host.ts';
import { eventOf, failureOf, op, World } from './support/world.ts';

let world: World;
beforeAll(async () => {
  world = await World.create();
});
afterAll(() => world.end());

const notMember = { code: 'not_a_member', status: 403 };
const unknownWorkspace = { code: 'unknown_workspace', status: 404 };

const push = (userId: string, workspaceId: string) =>
  failureOf(
    world.adapter.push(eventOf(userId), { scope: { workspaceId }, ops: [op('threads', 't', {})] }),
  );

test('a user is made once for each identity', async () => {
  const identity = { provider: 'basic', providerUserId: 'ann' };
  expect(await world.store.getUser(identity)).toBe(null);
  const ann = { ...identity, email: ' Ann@Example.com ', displayName: 'Ann' };
  const { userId } = await world.store.getOrCreateUser(ann);
  expect(await world.store.getOrCreateUser(identity)).toEqual({ userId });
  expect(await world.store.getUser(identity)).toEqual({
    userId,
    email: 'ann@example.com',
    displayName: 'Ann',
  });
  const other = await world.store.getOrCreateUser({ ...identity, provider: 'clerk' });
  expect(other.userId).not.toBe(userId);
  expect(await world.store.getUser({ ...identity, provider: 'clerk' })).toEqual(other);
});

test('first requests at once make one user and one workspace', async () => {
  const identity = { provider: 'basic', providerUserId: 'twice' };
  const users = await Promise.all(
    Array.from({ length: 8 }, () => world.store.getOrCreateUser(identity)),
  );
  const ids = new Set(users.map(({ userId }) => userId));
  expect(ids.size).toBe(1);
  const [userId] = ids as Set<string>;
  const workspaces = await Promise.all(
    Array.from({ length: 8 }, () => world.store.getOrCreateDefaultWorkspace(userId!)),
  );
  expect(new Set(workspaces.map(({ workspaceId }) => workspaceId)).size).toBe(1);
  expect(workspaces.filter(({ created }) => created).length).toBe(1);
  expect(await world.store.listUserWorkspaces(userId!)).toHaveLength(1);
});

test('an identity needs a provider and an id', async () => {
  for (const identity of [
    { provider: '', providerUserId: 'x' },
    { provider: 'x', providerUserId: '' },
  ]) {
    expect(await failureOf(world.store.getOrCreateUser(identity))).toMatchObject({ status: 400 });
  }
  const identity = { provider: `a'b"; --`, providerUserId: `'); drop table or3.account; --` };
  const { userId } = await world.store.getOrCreateUser(identity);
  expect(await world.store.getOrCreateUser(identity)).toEqual({ userId });
});

test('the default workspace is the active one, then the oldest, then a new one', async () => {
  const userId = await world.user();
  const first = await world.store.getOrCreateDefaultWorkspace(userId);
  expect(first).toMatchObject({ workspaceName: 'My Workspace', created: true });
  const again = await world.store.getOrCreateDefaultWorkspace(userId);
  expect(again).toEqual({ ...first, created: false });
  const { workspaceId } = await world.store.createWorkspace({ userId, name: ' Second ' });
  expect(await world.store.getOrCreateDefaultWorkspace(userId)).toMatchObject({
    workspaceId: first.workspaceId,
  });
  await world.store.setActiveWorkspace({ userId, workspaceId });
  expect(await world.store.getOrCreateDefaultWorkspace(userId)).toEqual({
    workspaceId,
    workspaceName: 'Second',
    created: false,
  });
  await world.store.removeWorkspace({ userId, workspaceId });
  expect(await world.store.getOrCreateDefaultWorkspace(userId)).toMatchObject({
    workspaceId: first.workspaceId,
  });
  await world.store.removeWorkspace({ userId, workspaceId: first.workspaceId });
  const third = await world.store.getOrCreateDefaultWorkspace(userId);
  expect(third).toMatchObject({ created: true });
  expect([first.workspaceId, workspaceId]).not.toContain(third.workspaceId);
});

test('an unknown user gets nothing', async () => {
  const unknown = { code: 'unknown_user', status: 404 };
  expect(await failureOf(world.store.getOrCreateDefaultWorkspace('nobody'))).toEqual(unknown);
  expect(await failureOf(world.store.createWorkspace({ userId: 'nobody', name: 'x' }))).toEqual(
    unknown,
  );
  expect(await world.store.listUserWorkspaces('nobody')).toEqual([]);
  for (const userId of ['', ' ']) {
    const nobody = { code: 'no_session', status: 401 };
    expect(await failureOf(world.store.listUserWorkspaces(userId))).toEqual(nobody);
    expect(await failureOf(world.store.getOrCreateDefaultWorkspace(userId))).toEqual(nobody);
    expect(await failureOf(world.store.getWorkspaceRole({ userId, workspaceId: 'w' }))).toEqual(
      nobody,
    );
    expect(await failureOf(world.store.removeWorkspace({ userId, workspaceId: 'w' }))).toEqual(
      nobody,
    );
  }
});

test('workspaces are listed with role, description and which is active', async () => {
  const { owner, workspaceId } = await world.workspace();
  const viewer = await world.member(workspaceId, 'viewer');
  const own = await world.store.createWorkspace({
    userId: viewer,
    name: 'Own',
    description: 'Mine',
  });
  await world.store.setActiveWorkspace({ userId: viewer, workspaceId });
  expect(await world.store.listUserWorkspaces(viewer)).toEqual([
    {
      id: workspaceId,
      name: 'Test',
      description: null,
      role: 'viewer',
      createdAt: expect.any(Number),
      isActive: true,
    },
    {
      id: own.workspaceId,
      name: 'Own',
      description: 'Mine',
      role: 'owner',
      createdAt: expect.any(Number),
      isActive: false,
    },
  ]);
  const [first] = await world.store.listUserWorkspaces(owner);
  expect(Math.abs(first!.createdAt! - Date.now() / 1000)).toBeLessThan(3600);
});

test('only members make a workspace their active one', async () => {
  const { workspaceId } = await world.workspace();
  const stranger = await world.user();
  expect(
    await failureOf(world.store.setActiveWorkspace({ userId: stranger, workspaceId })),
  ).toEqual(notMember);
});

test.each([
  ['owner', 'no error'],
  ['editor', 'no error'],
  ['viewer', notMember],
  [null, notMember],
] as Array<[WorkspaceRole | null, unknown]>)(
  '%s renames a workspace: %o',
  async (role, outcome) => {
    const { owner, workspaceId } = await world.workspace();
    const userId = role === null ? await world.user() : await world.member(workspaceId, role);
    const renamed = world.store.updateWorkspace({
      userId,
      workspaceId,
      name: 'New',
      description: 'd',
    });
    expect(await failureOf(renamed)).toEqual(outcome);
    const [workspace] = await world.store.listUserWorkspaces(owner);
    expect(workspace!.name).toBe(outcome === 'no error' ? 'New' : 'Test');
  },
);

test('a name must not be empty', async () => {
  const { owner, workspaceId } = await world.workspace();
  const invalid = { code: 'invalid_request', status: 400 };
  const empty = { userId: owner, name: ' ' };
  expect(await failureOf(world.store.updateWorkspace({ ...empty, workspaceId }))).toEqual(invalid);
  expect(await failureOf(world.store.createWorkspace(empty))).toEqual(invalid);
});

test('roles are those of sync_ext', async () => {
  const { owner, workspaceId } = await world.workspace();
  const userId = await world.member(workspaceId, 'viewer');
  const role = () => world.store.getWorkspaceRole({ userId, workspaceId });
  expect(await role()).toBe('viewer');
  expect(await push(userId, workspaceId)).toEqual(notMember);
  await world.store.setMemberRole({ workspaceId, userId, role: 'editor' });
  expect(await role()).toBe('editor');
  expect(await push(userId, workspaceId)).toBe('no error');
  // Also what others change there.
  await world.admin.query("select sync_set_member($1, $2, 'owner')", [workspaceId, userId]);
  expect(await role()).toBe('owner');
  await world.store.removeMember({ workspaceId, userId });
  expect(await role()).toBe(null);
  expect(await push(userId, workspaceId)).toEqual(notMember);
  expect(await world.store.listUserWorkspaces(userId)).toEqual([]);
  expect(await world.store.getWorkspaceRole({ userId: owner, workspaceId })).toBe('owner');
});

test('members are listed with their addresses', async () => {
  const { owner, workspaceId } = await world.workspace();
  const identity = { provider: 'list', providerUserId: 'bob' };
  const { userId } = await world.store.getOrCreateUser({ ...identity, email: 'bob@example.com' });
  await world.store.upsertMember({
    workspaceId,
    emailOrProviderId: 'BOB@example.com',
    role: 'viewer',
  });
  expect(await world.store.listMembers({ workspaceId })).toEqual([
    { userId: owner, role: 'owner' },
    { userId, email: 'bob@example.com', role: 'viewer' },
  ]);
  await world.store.upsertMember({
    workspaceId,
    emailOrProviderId: 'bob',
    provider: 'list',
    role: 'editor',
  });
  await world.store.upsertMember({ workspaceId, emailOrProviderId: userId, role: 'editor' });
  expect(await world.store.getWorkspaceRole({ userId, workspaceId })).toBe('editor');
});

test('who is unknown, or known twice, does not become a member', async () => {
  const { workspaceId } = await world.workspace();
  for (const provider of ['one', 'two']) {
    await world.store.getOrCreateUser({
      provider,
      providerUserId: 'same',
      email: 'same@example.com',
    });
  }
  const put = (emailOrProviderId: string, provider?: string) =>
    failureOf(
      world.store.upsertMember({
        workspaceId,
        emailOrProviderId,
        role: 'viewer',
        ...(provider !== undefined && { provider }),
      }),
    );
  const unknown = { code: 'unknown_user', status: 404 };
  expect(await put('nobody@example.com')).toEqual(unknown);
  expect(await put('nobody')).toEqual(unknown);
  expect(await put('same')).toEqual(unknown);
  expect(await put('same@example.com')).toEqual(unknown);
  expect(await put('same', 'one')).toBe('no error');
});

test('a workspace keeps an owner', async () => {
  const { owner, workspaceId } = await world.workspace();
  const last = { code: 'last_owner', status: 409 };
  const demote = () =>
    failureOf(world.store.setMemberRole({ workspaceId, userId: owner, role: 'viewer' }));
  expect(await demote()).toEqual(last);
  expect(await failureOf(world.store.removeMember({ workspaceId, userId: owner }))).toEqual(last);
  await world.member(workspaceId, 'owner');
  expect(await demote()).toBe('no error');
});

test('changes of who is not a member are refused', async () => {
  const { workspaceId } = await world.workspace();
  const userId = await world.user();
  const unknown = { code: 'unknown_member', status: 404 };
  expect(
    await failureOf(world.store.setMemberRole({ workspaceId, userId, role: 'owner' })),
  ).toEqual(unknown);
  expect(await failureOf(world.store.removeMember({ workspaceId, userId }))).toEqual(unknown);
  const nowhere = { workspaceId: 'none', userId };
  expect(await failureOf(world.store.removeMember(nowhere))).toEqual(unknownWorkspace);
  const role = 'superuser' as WorkspaceRole;
  expect(
    await failureOf(world.store.upsertMember({ workspaceId, emailOrProviderId: userId, role })),
  ).toEqual({ code: 'invalid_request', status: 400 });
});

test('a removed workspace is closed to everybody, and comes back whole', async () => {
  const { owner, workspaceId } = await world.workspace();
  const members: Array<[string, WorkspaceRole]> = [[owner, 'owner']];
  for (const role of ['owner', 'editor', 'viewer'] as const) {
    members.push([await world.member(workspaceId, role), role]);
  }
  const [, , [editor], [viewer]] = members as [unknown, unknown, [string], [string]];
  await push(owner, workspaceId);
  await world.adapter.updateCursor(eventOf(owner), {
    scope: { workspaceId },
    deviceId: 'd',
    version: 1,
  });
  await world.store.setActiveWorkspace({ userId: editor, workspaceId });
  for (const userId of [editor, viewer, await world.user()]) {
    expect(await failureOf(world.store.removeWorkspace({ userId, workspaceId }))).toEqual(
      notMember,
    );
  }

  await world.store.removeWorkspace({ userId: owner, workspaceId });
  for (const [userId] of members) {
    expect(await push(userId, workspaceId)).toEqual(notMember);
    const request = { scope: { workspaceId }, cursor: 0, limit: 1 };
    expect(await failureOf(world.adapter.pull(eventOf(userId), request))).toEqual(notMember);
    expect(await world.store.getWorkspaceRole({ userId, workspaceId })).toBe(null);
    expect(await world.store.listUserWorkspaces(userId)).toEqual([]);
  }
  const { rows } = await world.admin.query('select sync_list_members($1) as reply', [workspaceId]);
  expect(rows[0].reply.members).toEqual([{ userId: '$removed', role: 'owner' }]);
  expect(await world.store.listMembers({ workspaceId })).toEqual([]);
  expect(await failureOf(world.store.removeWorkspace({ userId: owner, workspaceId }))).toEqual(
    notMember,
  );
  const put = { workspaceId, emailOrProviderId: owner, role: 'owner' } as const;
  expect(await failureOf(world.store.upsertMember(put))).toEqual(unknownWorkspace);
  expect(await world.store.getOrCreateDefaultWorkspace(editor)).toMatchObject({ created: true });

  await world.store.restoreWorkspace({ workspaceId });
  await world.store.restoreWorkspace({ workspaceId });
  for (const [userId, role] of members) {
    expect(await world.store.getWorkspaceRole({ userId, workspaceId })).toBe(role);
  }
  const back = await world.admin.query('select sync_list_members($1) as reply', [workspaceId]);
  expect(back.rows[0].reply.members).toHaveLength(4);
  expect([...(await world.records(workspaceId)).keys()]).toEqual(['threads/t']);
  expect(await push(editor, workspaceId)).toBe('no error');
  expect(await failureOf(world.store.restoreWorkspace({ workspaceId: 'none' }))).toEqual(
    unknownWorkspace,
  );
});
