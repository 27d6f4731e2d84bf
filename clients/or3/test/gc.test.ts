import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { SyncExtGatewayAdapter } from '../src/server/adapter.ts';
import { eventOf, failureOf, op, World } from './support/world.ts';

let world: World;
beforeAll(async () => {
  world = await World.create();
});
afterAll(() => world.end());

const year = 365 * 24 * 60 * 60;

/** Every entry is this old; the entry at the head is never purged. */
async function agedWorkspace(age: string) {
  const { owner, workspaceId } = await world.workspace();
  await world.push(
    owner,
    workspaceId,
    op('threads', 'a', {}),
    op('threads', 'a', null, { clock: 2 }),
    op('threads', 'b', {}),
  );
  await world.admin.query(
    `update sync_ext.change_log set created_at = now() - $2::interval
      where workspace_key = (select workspace_key from sync_ext.workspace where workspace_id = $1)`,
    [workspaceId, age],
  );
  const entries = async () => {
    const { rows } = await world.admin.query(
      `select count(*)::int as n from sync_ext.change_log join sync_ext.workspace using (workspace_key)
        where workspace_id = $1`,
      [workspaceId],
    );
    return rows[0].n;
  };
  return { owner, workspaceId, entries };
}

test.each(['gcTombstones', 'gcChangeLog'] as const)(
  '%s purges what is older than the retention',
  async (name) => {
    const { owner, workspaceId, entries } = await agedWorkspace('2 hours');
    const gc = (retentionSeconds: number) =>
      world.adapter[name](eventOf(owner), { scope: { workspaceId }, retentionSeconds });
    await gc(3 * 3600);
    expect(await entries()).toBe(3);
    await gc(3600.5);
    expect(await entries()).toBe(1);
  },
);

test('a fraction of a second counts', async () => {
  const { owner, workspaceId } = await world.workspace();
  // One that only notes what it is asked.
  await world.admin.query(`
    create schema noting;
    create table noting.retention (value interval);
    create function noting.sync_gc(text, interval) returns json language sql as
      $$ insert into noting.retention values ($2) returning '{"hasMore": false}'::json $$`);
  const options = '-c search_path=noting,public';
  const pool = new pg.Pool({ ...world.cluster.connection(world.database), options });
  const adapter = new SyncExtGatewayAdapter({ database: pool });
  await adapter.gcChangeLog(eventOf(owner), { scope: { workspaceId }, retentionSeconds: 3600.25 });
  const { rows } = await pool.query('select value::text from noting.retention');
  await pool.end();
  expect(rows).toEqual([{ value: '01:00:00.25' }]);
});

test.each([0, 3599, 3599.999, year + 1, Infinity, NaN, -3600, '7200' as unknown as number])(
  'a retention of %s seconds is refused',
  async (retentionSeconds) => {
    const { owner, workspaceId, entries } = await agedWorkspace('2 years');
    const call = world.adapter.gcTombstones(eventOf(owner), {
      scope: { workspaceId },
      retentionSeconds,
    });
    expect(await failureOf(call)).toEqual({ code: 'invalid_request', status: 400 });
    expect(await entries()).toBe(3);
  },
);

test.each([3600, year])('a retention of %s seconds is allowed', async (retentionSeconds) => {
  const { owner, workspaceId, entries } = await agedWorkspace('2 years');
  await world.adapter.gcTombstones(eventOf(owner), { scope: { workspaceId }, retentionSeconds });
  expect(await entries()).toBe(1);
});

test('only owners purge', async () => {
  const { workspaceId, entries } = await agedWorkspace('2 years');
  const editor = await world.member(workspaceId, 'editor');
  const call = world.adapter.gcTombstones(eventOf(editor), {
    scope: { workspaceId },
    retentionSeconds: 3600,
  });
  expect(await failureOf(call)).toEqual({ code: 'not_a_member', status: 403 });
  expect(await entries()).toBe(3);
});

test('it goes on until nothing is left', async () => {
  const { owner, workspaceId } = await world.workspace();
  let calls = 0;
  const adapter = new SyncExtGatewayAdapter({
    database: {
      connect: () => world.sync.connect(),
      query: async () => ({ rows: [{ reply: { hasMore: ++calls < 5 } }], rowCount: 1 }),
    },
  });
  await adapter.gcChangeLog(eventOf(owner), { scope: { workspaceId }, retentionSeconds: 3600 });
  expect(calls).toBe(5);
});
