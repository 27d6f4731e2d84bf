/**
 * Users and workspaces. Identities, names and invites are in the tables of schema or3; who
 * is a member, and in which role, only sync_ext knows.
 */
import type {
  AuthWorkspaceStore,
  Identity,
  Invite,
  InviteProvisionResult,
  InviteStatus,
  InviteToken,
  InviteValidationResult,
  WorkspaceAccessStore,
  WorkspaceEntry,
  WorkspaceRole,
} from '../host.ts';
import { transactionFor, callFor, type Database } from './database.ts';
import * as invites from './invites.ts';
import * as members from './members.ts';
import * as users from './users.ts';
import * as workspaces from './workspaces.ts';

/**
 * Calls that name the user who makes them have that user's rights. The others act for the
 * app, which has checked before who may: their database login must be trusted by sync_ext.
 */
export class SyncExtAuthWorkspaceStore implements AuthWorkspaceStore, WorkspaceAccessStore {
  readonly #database: Database;

  constructor(options: { database: Database }) {
    this.#database = options.database;
  }

  async getUser(
    input: Identity,
  ): Promise<{ userId: string; email?: string; displayName?: string } | null> {
    return await this.#asApp((connection) => users.find(connection, input));
  }

  async getOrCreateUser(
    input: Identity & { email?: string; displayName?: string },
  ): Promise<{ userId: string }> {
    const { userId } = await this.#asApp((connection) => users.findOrCreate(connection, input));
    return { userId };
  }

  async getOrCreateDefaultWorkspace(
    userId: string,
  ): Promise<{ workspaceId: string; workspaceName: string; created: boolean }> {
    return await transactionFor(this.#database, userId, (connection) =>
      workspaces.findOrCreateDefault(connection, userId),
    );
  }

  async getWorkspaceRole(input: {
    userId: string;
    workspaceId: string;
  }): Promise<WorkspaceRole | null> {
    const { userId, workspaceId } = input;
    return await callFor(this.#database, userId, 'sync_get_role($2)', [workspaceId]);
  }

  async listUserWorkspaces(userId: string): Promise<WorkspaceEntry[]> {
    return await transactionFor(this.#database, userId, (connection) =>
      workspaces.list(connection, userId),
    );
  }

  async createWorkspace(input: {
    userId: string;
    name: string;
    description?: string | null;
  }): Promise<{ workspaceId: string }> {
    return await transactionFor(this.#database, input.userId, (connection) =>
      workspaces.create(connection, input),
    );
  }

  async updateWorkspace(input: {
    userId: string;
    workspaceId: string;
    name: string;
    description?: string | null;
  }): Promise<void> {
    await transactionFor(this.#database, input.userId, (connection) =>
      workspaces.update(connection, input),
    );
  }

  async removeWorkspace(input: { userId: string; workspaceId: string }): Promise<void> {
    await transactionFor(this.#database, input.userId, (connection) =>
      workspaces.removeSoftly(connection, input.workspaceId),
    );
  }

  /** Of this package: brings a removed workspace back, with the members it had. */
  async restoreWorkspace(input: { workspaceId: string }): Promise<void> {
    await this.#asApp((connection) => workspaces.restore(connection, input.workspaceId));
  }

  async setActiveWorkspace(input: { userId: string; workspaceId: string }): Promise<void> {
    await transactionFor(this.#database, input.userId, (connection) =>
      workspaces.activate(connection, input.userId, input.workspaceId),
    );
  }

  async listMembers(input: {
    workspaceId: string;
  }): Promise<Array<{ userId: string; email?: string; role: WorkspaceRole }>> {
    return await this.#asApp((connection) => members.list(connection, input.workspaceId));
  }

  async upsertMember(input: {
    workspaceId: string;
    emailOrProviderId: string;
    role: WorkspaceRole;
    provider?: string;
  }): Promise<void> {
    await this.#asApp((connection) => members.put(connection, input));
  }

  async setMemberRole(input: {
    workspaceId: string;
    userId: string;
    role: WorkspaceRole;
  }): Promise<void> {
    await this.#asApp((connection) => members.setRole(connection, input));
  }

  async removeMember(input: { workspaceId: string; userId: string }): Promise<void> {
    await this.#asApp((connection) => members.remove(connection, input));
  }

  async createInvite(input: invites.NewInvite): Promise<{ inviteId: string }> {
    return await this.#asApp((connection) => invites.create(connection, input));
  }

  async listInvites(input: {
    workspaceId: string;
    status?: InviteStatus;
    limit?: number;
  }): Promise<Invite[]> {
    return await this.#asApp((connection) => invites.list(connection, input));
  }

  async revokeInvite(input: { workspaceId: string; inviteId: string }): Promise<void> {
    await this.#asApp((connection) => invites.revoke(connection, input));
  }

  async validateInvite(input: InviteToken): Promise<InviteValidationResult> {
    return await this.#asApp((connection) => invites.validate(connection, input));
  }

  async consumeInvite(
    input: InviteToken & { acceptedUserId: string },
  ): Promise<InviteValidationResult> {
    const { acceptedUserId } = input;
    return await this.#asApp((connection) =>
      invites.consume(connection, input, async () => acceptedUserId),
    );
  }

  async acceptInviteAndProvisionUser(
    input: Identity & InviteToken & { displayName?: string },
  ): Promise<InviteProvisionResult> {
    return await this.#asApp(async (connection) => {
      let [userId, createdUser] = ['', false];
      const result = await invites.consume(connection, input, async () => {
        ({ userId, createdUser } = await users.findOrCreate(connection, input));
        return userId;
      });
      if (!result.ok) return result;
      return { ok: true, userId, workspaceId: input.workspaceId, role: result.role, createdUser };
    });
  }

  #asApp<T>(work: Parameters<typeof transactionFor<T>>[2]): Promise<T> {
    return transactionFor<T>(this.#database, null, work);
  }
}
