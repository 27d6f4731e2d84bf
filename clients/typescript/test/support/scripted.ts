import type { Change, Fields, Op, Payload, PushResult } from '../../src/wire.ts';

/** The `fetch` of a server that accepts what it is pushed, but for the ops that a test has refused. */
export function scripted(refuse: (op: Op) => Partial<PushResult> | undefined = () => undefined): typeof fetch {
  const changes: Change[] = [];
  const records = new Map<string, { payload: Payload; fields: Fields }>();
  const push = (ops: Op[]) => {
    const results = ops.map((op): PushResult => {
      const { opId } = op.stamp;
      const refused = refuse(op);
      if (refused) return { opId, success: false, ...refused };
      const serverVersion = changes.length + 1;
      const { operation, tableName, pk, payload, base, stamp } = op;
      const key = `${tableName} ${pk}`;
      const old = operation === 'patch' ? records.get(key) : undefined;
      const names = old ? Object.keys(payload!) : [];
      const fields = { ...old?.fields, ...Object.fromEntries(names.map((name) => [name, stamp])) };
      const record = { payload: { ...old?.payload, ...payload }, fields };
      records.set(key, record);
      const change: Change = { serverVersion, tableName, pk, op: operation, applied: true, stamp };
      if (operation !== 'delete') Object.assign(change, record);
      changes.push(base ? { ...change, base } : change);
      return { opId, success: true, serverVersion, applied: true };
    });
    return { results, serverVersion: changes.length };
  };
  const pull = ({ cursor }: { cursor: number }) => ({
    changes: changes.slice(cursor),
    nextCursor: changes.length,
    hasMore: false,
    serverVersion: changes.length,
    requiresSnapshot: false,
    proof: null,
  });
  return async (input, init) => {
    const body = JSON.parse(String(init!.body));
    const path = String(input);
    return Response.json(path.endsWith('/push') ? push(body) : path.endsWith('/pull') ? pull(body) : {});
  };
}
