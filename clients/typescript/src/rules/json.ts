import type { Json, Payload } from '../wire.ts';

/** Whether two values are the same JSON: the order of keys is irrelevant. */
export function isEqual(a: Json | undefined, b: Json | undefined): boolean {
  if (a === b) return true;
  if (typeof a !== 'object' || typeof b !== 'object' || !a || !b || Array.isArray(a) !== Array.isArray(b)) return false;
  // The names of an array's members are its indexes.
  const members = Object.entries(a);
  return members.length === Object.keys(b).length
    && members.every(([name, member]) => Object.hasOwn(b, name) && isEqual(member, (b as Payload)[name]));
}

/** The members of an object that pass. */
export function pick(payload: Payload, passes: (name: string, value: Json) => boolean): Payload {
  return Object.fromEntries(Object.entries(payload).filter(([name, value]) => passes(name, value)));
}

/** Whether a server takes it as a name or key of at most so many bytes. */
export function isName(text: string, most: number): boolean {
  return text !== '' && !text.includes('\0') && (3 * text.length <= most || new TextEncoder().encode(text).length <= most);
}

/** Servers accept 100, by default. */
const DEEPEST = 500;

/** A copy of a row as the JSON that it is, without members that are undefined. Fails with the
 * path of a value that would come back as another one, like a Date. */
export function toPayload(row: unknown): Payload {
  if (!isPlain(row)) throw new TypeError('a record is an object');
  return copy(row, '', 1) as Payload;
}

function copy(value: unknown, path: string, level: number): Json {
  if (typeof value === 'string' && value.isWellFormed()) return value;
  if (typeof value === 'boolean' || Number.isFinite(value) || value === null) return value as Json;
  if (level > DEEPEST) throw new TypeError('it contains itself, or is nested too deeply');
  if (Array.isArray(value)) return Array.from(value, (item, i) => copy(item, `${path}[${i}]`, level + 1));
  if (!isPlain(value)) {
    const kind = typeof value === 'object' ? value.constructor?.name : String(value);
    throw new TypeError(`${path || 'it'} is not JSON: ${kind}`);
  }
  // Not by assignment, which would make a member named __proto__ the prototype.
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, member]) => member !== undefined)
      .map(([name, member]) => {
        const at = path === '' ? name : `${path}.${name}`;
        return [copy(name, at, level), copy(member, at, level + 1)];
      }),
  );
}

function isPlain(value: unknown): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null) return false;
  const prototype = Object.getPrototypeOf(value);
  // The prototype of a class is refused, that of another realm's plain object is not.
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}
