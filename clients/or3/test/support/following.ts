/** A subscription, and what it brings. */
import type { SyncChange, SyncProvider, SyncScope } from '../../src/host.ts';

export class Following {
  readonly changes: SyncChange[] = [];
  readonly errors: unknown[] = [];
  /** Thrown by the next application, once. */
  failure: Error | undefined;
  end: () => void = () => {};
  #wake: () => void = () => {};

  static async start(
    provider: SyncProvider,
    scope: SyncScope,
    tables: string[] = [],
    cursor = 0,
    limit = 100,
  ): Promise<Following> {
    const following = new Following();
    following.end = await provider.subscribe(
      scope,
      tables,
      async (changes) => following.#apply(changes),
      { cursor, limit },
    );
    return following;
  }

  /** Waits until so many changes have come, by no clock. */
  async until(count: number): Promise<SyncChange[]> {
    while (this.changes.length < count) {
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    return this.changes;
  }

  #apply(changes: SyncChange[]): void {
    const { failure } = this;
    this.failure = undefined;
    if (failure) throw failure;
    this.changes.push(...changes);
    this.#wake();
  }
}
