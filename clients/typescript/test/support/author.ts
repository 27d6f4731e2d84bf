import type { Author } from '../../src/rules/edit.ts';

/** Makes opIds and hlcs that are easy to read: op1, op2. */
export class TestAuthor implements Author {
  readonly deviceId: string;
  #ops = 0;
  #hlcs = 0;

  constructor(deviceId = 'me') {
    this.deviceId = deviceId;
  }

  newOpId(): string {
    return `op${++this.#ops}`;
  }

  newHlc(): string {
    return `${String(++this.#hlcs).padStart(4, '0')}:${this.deviceId}`;
  }

  isOwn(hlc: string): boolean {
    return hlc.endsWith(`:${this.deviceId}`);
  }
}
