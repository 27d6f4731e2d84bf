import type { Payload } from '../../typescript/src/index.ts';
import { DATABASE } from './names.ts';
import { isInside, keyOf } from './stored.ts';
import { order, same } from './view.ts';
import { isRowOf } from './watch.ts';
import type { World } from './world.ts';

/** What must be true when all is quiet: every device shows what the server has, and no edit is
 * lost. */
export async function judge(world: World): Promise<void> {
  await world.note();
  const failures = [
    ...await judgeRecords(world),
    ...judgeOps(world),
    ...judgeTaken(world),
    ...await judgeTables(world),
  ];
  if (failures.length > 0) throw new Error(failures.slice(0, 5).join('\n'));
}

async function judgeRecords({ backend, workspace, clients, watch }: World): Promise<string[]> {
  const records = await backend.records(workspace);
  const failures: string[] = [];
  for (const client of clients) {
    const { known, state } = watch.told(client).last;
    const tables = client.tables;
    const live = records.filter((record) => (
      tables.includes(record.tableName) && isInside(keyOf(record), record.payload as Payload, state?.scopes)
    ));
    for (const table of tables) {
      const rows = client.origin.read<Payload>(DATABASE, table);
      for (const pk of rows.keys()) {
        if (!live.some((record) => record.tableName === table && record.pk === pk)) {
          failures.push(`${client.user} has ${table} ${pk}, the server has not`);
        }
      }
    }
    for (const record of live) {
      const { tableName, pk, payload, version } = record;
      const row = client.origin.read<Payload>(DATABASE, tableName).get(pk);
      if (!isRowOf(row, payload as Payload, pk, client.fieldsOf(tableName))) {
        failures.push(`${client.user} has ${tableName} ${pk} ${JSON.stringify(row)}, the server ${JSON.stringify(payload)}`);
      }
      const synced = known.get(keyOf(record));
      if (synced?.version !== version || !same(synced.payload, payload)) {
        failures.push(`${client.user} has synced ${tableName} ${pk} ${JSON.stringify(synced)}, the server ${version} ${JSON.stringify(payload)}`);
      }
    }
  }
  return failures;
}

/** What left an outbox because the server had it was in the history that the client followed. */
function judgeOps({ watch, eras }: World): string[] {
  const ids = eras.map((era) => new Set([...era.values()].map(({ opId }) => opId)));
  const has = (era: number, opId: string) => ids[era]!.has(opId);
  return watch.left.flatMap(({ client, op, proof }) => {
    const { opId } = op.stamp;
    const followed = [...watch.eras.get(proof ?? '') ?? []];
    // A push may be the first call after a restore, and its answer tells of the new history.
    const told = [...watch.stored.get(opId) ?? []].filter((era) => followed.some((other) => other <= era));
    if ([...followed, ...told].some((era) => has(era, opId))) return [];
    return [`${client.user} dropped ${JSON.stringify(op)}, which is not in the history that it followed`];
  });
}

/** Own edits that a snapshot had not, and nobody was told of, were deleted by somebody, or taken to
 * another scope. */
function judgeTaken({ watch, eras }: World): string[] {
  return watch.taken.flatMap(({ client, key, old, scopes, proof }) => {
    const followed = [...watch.eras.get(proof ?? '') ?? []];
    const isDeleted = followed.some((era) => [...eras[era]!.values()].some((entry) => (
      keyOf(entry) === key && (entry.operation === 'delete'
        ? order(entry, old.register) >= 0
        : entry.scope !== null && !!scopes && !scopes.includes(entry.scope))
    )));
    return isDeleted ? [] : [`${client.user}: an own edit of ${key} is taken, and nobody is told`];
  });
}

async function judgeTables({ backend, workspace }: World): Promise<string[]> {
  const reports = await backend.differences(workspace);
  return reports.flatMap(({ differencesTotal, differences }) => (
    differencesTotal === 0 ? [] : [`the typed tables differ: ${JSON.stringify(differences)}`]
  ));
}
