type Remedy = 'later' | 'content' | 'snapshot' | 'pull' | 'login' | 'stop';

/** An error of a call, of the server or of this package. */
export class SyncError extends Error {
  override readonly name = 'SyncError';
  /** An SQLSTATE, or a word of this package in capitals. */
  readonly code: string;
  /** The HTTP status, if there was an answer. */
  declare readonly status: number | undefined;
  declare readonly detail: string | undefined;
  declare readonly hint: string | undefined;
  /** Milliseconds to wait before the next try, if the server named them. */
  declare readonly retryAfter: number | undefined;

  constructor(code: string, message: string, more: Partial<Pick<SyncError, 'status' | 'detail' | 'hint' | 'retryAfter'>> & ErrorOptions = {}) {
    super(message, more);
    Object.assign(this, more);
    this.code = code;
  }

  /** What to do about it:
   * - `later`: the same call may succeed later;
   * - `content`: fewer ops, or a smaller page, may pass;
   * - `snapshot`: it begins again;
   * - `pull`: pull first;
   * - `login`: who calls is not known any more;
   * - `stop`: nothing helps but somebody who changes something. */
  get remedy(): Remedy {
    const { code, status } = this;
    if (status === 401 || code.startsWith('28')) return 'login';
    if (code === 'SX001') return 'snapshot';
    if (code === 'SX003') return 'pull';
    // Other limits, which are 54000 too, are of the moment.
    const isContent = /^(22P0[25]|22021|54001|54000 (reply is too large|too many ops))/.test(`${code} ${this.message}`);
    if (status === 413 || isContent) return 'content';
    if (code === 'LOGGED_OUT' || status === 403 || status === 404 || code.startsWith('22')) return 'stop';
    return 'later';
  }
}

/** The remedy of any error: one of another kind comes from the store. */
export function remedyOf(error: unknown): Remedy | 'storage' {
  return error instanceof SyncError ? error.remedy : 'storage';
}
