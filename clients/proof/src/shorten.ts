/** The steps of a history that fails without those that it does not need to fail: halves,
 * quarters, at last single ones are left out, as long as there is time. */
export async function shorten<T>(
  steps: T[],
  fails: (steps: T[]) => Promise<boolean>,
  time: number,
): Promise<T[]> {
  const end = performance.now() + time;
  let shortest = steps;
  for (let size = Math.ceil(steps.length / 2); ; size = Math.ceil(size / 2)) {
    const before = shortest.length;
    for (let start = 0; start < shortest.length && performance.now() < end;) {
      const shorter = shortest.toSpliced(start, size);
      if (await fails(shorter)) shortest = shorter;
      else start += size;
    }
    if ((size <= 1 && shortest.length === before) || performance.now() >= end) return shortest;
  }
}
