import type { Author } from './edit.ts';

/** A hybrid logical clock of one device: milliseconds, a counter, the device; sorted by bytes it
 * never goes back, whatever the system's clock does. */
export class Clock implements Author {
  readonly deviceId: string;
  /** The time and counter of the last one. */
  #last = '';
  readonly #now: () => number;

  constructor(deviceId: string, last: string | null, now: () => number = Date.now) {
    this.deviceId = deviceId;
    this.#now = now;
    if (last) this.observe(last);
  }

  /** Goes on after an hlc that this device has made, perhaps in another tab. */
  observe(hlc: string): void {
    const [made = ''] = /^\d{13}:\d{4}:/.exec(hlc) ?? [];
    if (made > this.#last) this.#last = made;
  }

  newHlc(): string {
    const now = Math.floor(Math.min(Math.max(0, this.#now()), 9_999_999_999_999));
    let [millis = 0, counter = 0] = this.#last.split(':').map(Number);
    if (now > millis) [millis, counter] = [now, 0];
    else if (++counter > 9999) [millis, counter] = [millis + 1, 0];
    this.#last = `${digits(millis, 13)}:${digits(counter, 4)}:`;
    return this.#last + this.deviceId;
  }

  newOpId(): string {
    return newId(this.#now());
  }

  isOwn(hlc: string): boolean {
    return hlc.endsWith(`:${this.deviceId}`);
  }
}

function digits(value: number, length: number, radix = 10): string {
  return value.toString(radix).padStart(length, '0').slice(-length);
}

/** A UUID that begins with the time (version 7), which keeps the server's indexes compact. */
export function newId(now: number = Date.now()): string {
  const random = Array.from(crypto.getRandomValues(new Uint8Array(9)), (byte) => digits(byte, 2, 16));
  const all = `${digits(Math.max(0, Math.floor(now)), 12, 16)}7${random.join('')}`;
  return all.replace(/^(.{8})(.{4})(.{4})(.{3})/, '$1-$2-$3-8$4-');
}
