-- The user who first acknowledged for a device id. To sync_ext the same id under another
-- user is another device; the app refuses it.
create table or3.device (
  workspace_id text collate "C" not null,
  device_id text collate "C" not null,
  user_id text collate "C" not null,
  primary key (workspace_id, device_id)
);

create index device_user_id_idx on or3.device (user_id, workspace_id);

-- Announced uploads. One is active until it is consumed, cancelled or expired;
-- reserved_bytes count towards the quota while it is, and are 0 if the workspace has or
-- expects a file of this hash anyway.
create table or3.upload_intent (
  workspace_id text collate "C" not null,
  intent_id text collate "C" not null,
  hash text collate "C" not null,
  mime_type text not null,
  size_bytes bigint not null,
  reserved_bytes bigint not null,
  expires_at timestamptz not null,
  storage_id text,
  consumed_at timestamptz,
  cancelled_at timestamptz,
  created_at timestamptz not null default now(),
  primary key (workspace_id, intent_id),
  constraint upload_intent_size_bytes_check check (size_bytes > 0)
);

create index upload_intent_hash_idx on or3.upload_intent (workspace_id, hash)
  where consumed_at is null and cancelled_at is null;
