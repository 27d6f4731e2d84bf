import type { Entry } from '../rules/view.ts';

/** How a record's part of the outbox becomes another one: what is put in the place of the entry
 * with an opId, nothing if it leaves; an entry whose own opId is new there is added at the end. One
 * that is new takes the place of the last old one if that leaves: it must not pass one that stays. */
export function replacements(old: readonly Entry[], entries: readonly Entry[]): [opId: string, by?: Entry][] {
  const idOf = ({ op }: Entry) => op.stamp.opId;
  const left = new Map(old.map((entry) => [idOf(entry), entry]));
  const places: [string, Entry?][] = [];
  const added: Entry[] = [];
  for (const entry of entries) {
    const id = idOf(entry);
    const before = left.get(id);
    if (!left.delete(id)) added.push(entry);
    else if (before !== entry) places.push([id, entry]);
  }
  const last = old.at(-1);
  for (const entry of added) places.push([idOf(last && left.delete(idOf(last)) ? last : entry), entry]);
  for (const id of left.keys()) places.push([id]);
  return places;
}
