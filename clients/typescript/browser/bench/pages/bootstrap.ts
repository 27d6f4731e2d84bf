import Dexie from 'dexie';
import { syncTables } from '../../../src/index.ts';

/** How a new device began: milliseconds until it showed all, and how long the page was blocked,
 * each time that this was for 50 ms or more. */
export interface Begun {
  took: number;
  records: number;
  blocked: number[];
}

declare global {
  var begin: () => Promise<Begun>;
}

globalThis.begin = async () => {
  const blocked: number[] = [];
  new PerformanceObserver((list) => {
    blocked.push(...list.getEntries().map(({ duration }) => Math.round(duration)));
  }).observe({ type: 'longtask' });
  const db = new Dexie('bench');
  db.version(1).stores({ todos: 'id' });
  const sync = syncTables(db, {
    url: '/sync',
    workspace: new URLSearchParams(location.search).get('workspace')!,
    user: 'ann',
    headers: () => ({ 'x-user-id': 'ann' }),
    tables: { todos: { patches: true } },
  });
  const start = performance.now();
  await sync.start();
  await new Promise<void>((resolve) => sync.status.subscribe(({ phase }) => phase === 'live' && resolve()));
  const took = performance.now() - start;
  // The observer is told of long tasks later.
  await new Promise((resolve) => setTimeout(resolve, 200));
  return { took, records: await db.table('todos').count(), blocked };
};
