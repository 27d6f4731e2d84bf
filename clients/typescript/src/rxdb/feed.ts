import type { SyncError } from '../error.ts';
import { type Live, type Position, liveOf } from '../live.ts';
import type { ServerOptions } from '../server.ts';
import type { PullReply } from '../wire.ts';

export type Place = Pick<Position, 'cursor' | 'proof'>;

/** A collection that is replicated. */
export interface Member {
  readonly tableName: string;
  /** All changes from a version on. */
  receive(from: number, reply: PullReply): void;
  /** The stream has ended, and goes on after the next pull. */
  resync(): void;
}

/** The stream of a workspace, for all its collections. It begins where one of them has pulled to:
 * the others pull themselves as far, or further. */
export class Feed {
  readonly #live: Live;
  readonly #workspace: string;
  readonly #members = new Set<Member>();
  #tables: string[] = [];
  #place: Place | undefined;
  #unfollow: (() => void) | undefined;
  isConnected = false;

  constructor(live: Live, workspace: string) {
    this.#live = live;
    this.#workspace = workspace;
  }

  /** Returns what ends it. */
  join(member: Member): () => void {
    this.#members.add(member);
    if (!this.#tables.includes(member.tableName)) {
      this.#tables = [...this.#tables, member.tableName].sort();
      this.#follow();
    }
    return () => {
      this.#members.delete(member);
      if (this.#members.size === 0) this.#leave();
    };
  }

  /** A member has pulled everything up to here. */
  pulled(place: Place): void {
    if (this.#place) return;
    this.#place = place;
    this.#follow();
  }

  #follow(): void {
    this.#unfollow?.();
    if (!this.#place) return;
    this.#unfollow = this.#live.follow({
      workspace: this.#workspace,
      filter: this.#tables,
      position: async () => ({ ...this.#place!, scopes: null, deviceId: '', generation: 0 }),
      receive: async (reply) => this.#receive(reply),
      refused: () => this.#leave(),
      connected: (isConnected: boolean, _error?: SyncError) => {
        this.isConnected = isConnected;
      },
    });
  }

  #leave(): void {
    this.#unfollow?.();
    this.#unfollow = undefined;
    this.#place = undefined;
    this.isConnected = false;
  }

  #receive(reply: PullReply): boolean {
    if (!this.#place) return false;
    if (reply.requiresSnapshot) {
      this.#leave();
      for (const member of this.#members) member.resync();
      return false;
    }
    const from = this.#place.cursor;
    this.#place = { cursor: reply.nextCursor, proof: reply.proof };
    for (const member of this.#members) member.receive(from, reply);
    return true;
  }
}

const feeds: { live: Live; workspace: string; feed: Feed }[] = [];

/** One for all collections that name the same server and workspace in the same way. */
export function feedOf(options: ServerOptions & { workspace: string }): Feed {
  const { workspace } = options;
  const live = liveOf(options);
  const known = feeds.find((other) => other.live === live && other.workspace === workspace);
  if (known) return known.feed;
  const feed = new Feed(live, workspace);
  feeds.push({ live, workspace, feed });
  return feed;
}
