import type { Change, Op, PushResult } from '../../src/wire.ts';

/** The `fetch` of a server that accepts what it is pushed, but for the ops that a test has refused. */
export function scripted(refuse: (op: Op) => Partial<PushResult> | undefined = () => undefined): typeof fetch {
  const changes: Change[] = [];
  const push = (ops: Op[]) => {
    const results = ops.map((op): PushResult => {
      const { opId } = op.stamp;
      const refused = refuse(op);
      if (refused) return { opId, success: false, ...refused };
      const serverVersion = changes.length + 1;
      const { operation, expected: _, parent: __, ...rest } = op;
      changes.push({ ...rest, op: operation, applied: true, serverVersion });
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
