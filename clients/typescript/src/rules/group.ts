/** So many records are stored at once, so that the page's own work is not kept waiting. */
export const STORED_AT_ONCE = 150;

export function* inParts<T>(items: T[]): Iterable<T[]> {
  for (let i = 0; i < items.length; i += STORED_AT_ONCE) yield items.slice(i, i + STORED_AT_ONCE);
}

/** As Map.groupBy, which is younger than the browsers that this is for. */
export function groupBy<K, V>(values: Iterable<V>, keyOf: (value: V) => K): Map<K, V[]> {
  const groups = new Map<K, V[]>();
  for (const value of values) {
    const key = keyOf(value);
    const group = groups.get(key);
    if (group) group.push(value);
    else groups.set(key, [value]);
  }
  return groups;
}
