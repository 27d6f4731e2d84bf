import type { Entry } from '../rules/view.ts';

/** How a record's part of the outbox becomes another one: what is put in the place of an old
 * entry, null for nothing, and what is added at the end. An entry that is new and stands where an
 * old one that left stood takes its place. */
export function replacements(old: readonly Entry[], entries: readonly Entry[]): {
  replaced: [Entry, Entry | null][];
  added: Entry[];
} {
  const idOf = ({ op }: Entry) => op.stamp.opId;
  const before = new Map(old.map((entry) => [idOf(entry), entry]));
  const staying = new Set(entries.map(idOf));
  const freed = old.filter((entry) => !staying.has(idOf(entry)));
  const replaced: [Entry, Entry | null][] = [];
  const added: Entry[] = [];
  for (const entry of entries) {
    const same = before.get(idOf(entry));
    if (same === entry) continue;
    const place = same ?? freed.pop();
    if (place) replaced.push([place, entry]);
    else added.push(entry);
  }
  replaced.push(...freed.map((entry): [Entry, null] => [entry, null]));
  return { replaced, added };
}
