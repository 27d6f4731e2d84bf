-- What the app knows of users and workspaces beyond sync_ext: identities, names, soft
-- deletion, invitations. Who is a member, and in which role, is in sync_ext alone, which
-- checks it in every call.

create table or3.app_user (
  user_id text collate "C" primary key default gen_random_uuid()::text,
  email text,
  display_name text,
  active_workspace_id text collate "C",
  created_at timestamptz not null default now()
);

create table or3.account (
  provider text collate "C" not null,
  provider_user_id text collate "C" not null,
  user_id text collate "C" not null references or3.app_user on delete cascade,
  created_at timestamptz not null default now(),
  primary key (provider, provider_user_id)
);

create index account_user_id_idx on or3.account (user_id);

-- deleted_at: the workspace is soft-deleted, and its members are in former_member.
create table or3.workspace (
  workspace_id text collate "C" primary key default gen_random_uuid()::text,
  name text not null,
  description text,
  created_by text collate "C" references or3.app_user on delete set null,
  created_at timestamptz not null default now(),
  deleted_at timestamptz
);

create table or3.former_member (
  workspace_id text collate "C" not null references or3.workspace on delete cascade,
  user_id text collate "C" not null,
  role text not null,
  primary key (workspace_id, user_id),
  constraint former_member_role_check check (role in ('owner', 'editor', 'viewer'))
);

create table or3.invite (
  invite_id text collate "C" primary key default gen_random_uuid()::text,
  workspace_id text collate "C" not null references or3.workspace on delete cascade,
  email text not null,
  role text not null,
  token_hash text collate "C" not null,
  invited_by text collate "C" not null,
  expires_at timestamptz not null,
  accepted_at timestamptz,
  accepted_by text collate "C",
  revoked_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint invite_role_check check (role in ('owner', 'editor', 'viewer'))
);

create index invite_workspace_id_created_at_idx on or3.invite (workspace_id, created_at);
