/** What both ways of following a workspace have in common. */
import type { SyncChange, SyncScope } from '../host.ts';
import { RequestError } from './request.ts';

export interface FollowOptions {
  /**
   * The id of this device. With it a device is acknowledged for as long as it follows a
   * workspace; the app does so only when changes come, and a device that is silent for too
   * long has to start over.
   */
  deviceId?: () => string;
  /** Milliseconds between two of these acknowledgements; by default six hours. */
  acknowledgeIntervalMs?: number;
  /** Told of a failure, after which the subscription tries again. */
  onError?: (error: unknown) => void;
  /** Told that changes cannot be followed from the device's cursor any more. */
  onSnapshotRequired?: (scope: SyncScope) => void;
}

const sixHours = 6 * 60 * 60 * 1000;
const longestPause = 60 * 1000;

export type OnChanges = (changes: SyncChange[]) => void | Promise<void>;

/** A device that follows a workspace, from a cursor on, until it is ended. */
export class Subscription {
  cursor: number;
  readonly scope: SyncScope;
  readonly signal: AbortSignal;
  readonly #abort = new AbortController();
  readonly #options: FollowOptions;
  readonly #onChanges: OnChanges;

  constructor(scope: SyncScope, cursor: number, onChanges: OnChanges, options: FollowOptions) {
    this.scope = scope;
    this.cursor = cursor;
    this.signal = this.#abort.signal;
    this.#onChanges = onChanges;
    this.#options = options;
  }

  end(): void {
    this.#abort.abort();
  }

  /** Passes changes on, and only when they are applied goes on from their cursor. */
  async apply(changes: SyncChange[], nextCursor: number): Promise<void> {
    if (nextCursor <= this.cursor) return;
    if (changes.length > 0) await this.#onChanges(changes);
    this.cursor = nextCursor;
  }

  /** Runs `follow` again and again, after pauses that grow while it fails. */
  async run(follow: () => Promise<number>): Promise<void> {
    let failures = 0;
    while (!this.signal.aborted) {
      let pause: number;
      try {
        pause = await follow();
        failures = 0;
      } catch (error) {
        if (this.signal.aborted) return;
        if (error instanceof RequestError && error.isRefusal) return this.refuse(error.statusCode);
        this.#options.onError?.(error);
        const grown = Math.min(1000 * 2 ** failures++, longestPause);
        pause = (error instanceof RequestError && error.retryAfterMs) || grown;
      }
      await wait(pause, this.signal);
    }
  }

  /** Acknowledges now and then, by `acknowledge`, what has been applied. */
  async acknowledge(
    acknowledge: (deviceId: string, version: number) => Promise<void>,
  ): Promise<void> {
    const deviceId = this.#options.deviceId?.();
    if (!deviceId) return;
    while (!this.signal.aborted) {
      // The first one follows the first complete pull.
      if (this.cursor > 0) {
        await acknowledge(deviceId, this.cursor).catch((error) => this.#options.onError?.(error));
      }
      await wait(this.#options.acknowledgeIntervalMs ?? sixHours, this.signal);
    }
  }

  /** The app's session is to be looked at; nothing is followed any more. */
  refuse(status: number): void {
    this.end();
    const detail = { status, workspaceId: this.scope.workspaceId };
    const target = globalThis as { dispatchEvent?: (event: Event) => boolean };
    target.dispatchEvent?.(new CustomEvent('or3:sync-session-invalid', { detail }));
  }

  requireSnapshot(): void {
    this.#options.onSnapshotRequired?.(this.scope);
  }
}

/** Ends early, without an error, when the signal is given. */
export async function wait(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise<void>((resolve) => {
    const timer = setTimeout(done, ms);
    function done() {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    }
    signal.addEventListener('abort', done);
  });
}
