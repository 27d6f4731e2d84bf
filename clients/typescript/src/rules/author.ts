import type { Author } from './edit.ts';

/** A hybrid logical clock of one device: milliseconds, a counter, the device; sorted by bytes it
 * never goes back, whatever the system's clock does. */
export class Clock implements Author {
  readonly deviceId: string;
  #millis = 0;
  #counter = 0;
  readonly #now: () => number;

  constructor(deviceId: string, last: string | null, now: () => number = Date.now) {
    this.deviceId = deviceId;
    this.#now = now;
    if (last) this.observe(last);
  }

  /** Goes on after an hlc that this device has made, perhaps in another tab. */
  observe(hlc: string): void {
    const [, millis, counter] = /^(\d{13}):(\d{4}):/.exec(hlc) ?? [];
    if (!millis || (Number(millis) - this.#millis || Number(counter) - this.#counter) <= 0) return;
    this.#millis = Number(millis);
    this.#counter = Number(counter);
  }

  newHlc(): string {
    const now = Math.floor(Math.min(Math.max(0, this.#now()), 9_999_999_999_999));
    if (now > this.#millis) [this.#millis, this.#counter] = [now, 0];
    else if (++this.#counter > 9999) [this.#millis, this.#counter] = [this.#millis + 1, 0];
    return `${digits(this.#millis, 13)}:${digits(this.#counter, 4)}:${this.deviceId}`;
  }

  newOpId(): string {
    return newId(this.#now());
  }

  isOwn(hlc: string): boolean {
    return hlc.endsWith(`:${this.deviceId}`);
  }
}

function digits(value: number, length: number): string {
  return String(value).padStart(length, '0');
}

/** A UUID that begins with the time (version 7), which keeps the server's indexes compact. */
export function newId(now: number = Date.now()): string {
  const hex = (value: number, length: number) => value.toString(16).padStart(length, '0').slice(-length);
  const random = Array.from(crypto.getRandomValues(new Uint8Array(9)), (byte) => hex(byte, 2));
  const digits = `${hex(Math.max(0, Math.floor(now)), 12)}7${random.join('')}`;
  return digits.replace(/^(.{8})(.{4})(.{4})(.{3})/, '$1-$2-$3-8$4-');
}
