/** A local database that is measured. */
export interface Contender {
  /** Opens a new, empty one. */
  open(name: string): Promise<void>;
  put(row: Row): Promise<unknown>;
  bulkPut(rows: Row[]): Promise<unknown>;
  count(): Promise<number>;
}

export interface Row {
  id: string;
  listId: string;
  title: string;
  done: boolean;
  at: number;
}

/** Milliseconds, of so many rows. */
export interface Local {
  insert: number;
  update: number;
  bulk: number;
}

declare global {
  var measure: (puts: number, bulk: number) => Promise<Local>;
}

const rowOf = (i: number, done: boolean): Row => (
  { id: `r${String(i).padStart(8, '0')}`, listId: `l${i % 10}`, title: `Something to do, number ${i}`, done, at: 1_700_000_000_000 + i }
);

async function time(body: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await body();
  return performance.now() - start;
}

/** Offers the measurements of a contender to the bench. */
export function offer(contender: Contender): void {
  globalThis.measure = async (puts, bulk) => {
    await contender.open('bench');
    const all = async (from: number, to: number, done: boolean) => {
      for (let i = from; i < to; i++) await contender.put(rowOf(i, done));
    };
    await all(0, 100, false);
    const insert = await time(() => all(100, 100 + puts, false));
    const update = await time(() => all(100, 100 + puts, true));
    const rows = Array.from({ length: bulk }, (_, i) => rowOf(1_000_000 + i, false));
    const bulkTime = await time(() => contender.bulkPut(rows));
    const count = await contender.count();
    if (count !== 100 + puts + bulk) throw new Error(`${count} rows are there`);
    return { insert, update, bulk: bulkTime };
  };
}
