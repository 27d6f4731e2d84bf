import type { Status, Sync } from './sync.ts';

/** What the element says; `texts` replaces some of it, for other languages. */
export interface Texts {
  phase(status: Status): string;
  pending(count: number): string;
  conflicts(count: number): string;
}

const PHASES: { [phase in Status['phase']]: string } = {
  stopped: 'Not syncing',
  starting: 'Starting',
  syncing: 'Syncing',
  live: 'Up to date',
  polling: 'Up to date',
  waiting: 'Offline',
  unauthorized: 'Sign in again',
  refused: 'Refused by the server',
  storage: 'Storage fails',
};

const ENGLISH: Texts = {
  phase({ phase, pending, online, progress }) {
    if (progress) return `Loading ${progress.share === null ? progress.records : `${percent(progress.share)} %`}`;
    if (phase === 'waiting' && online) return 'Waiting for the server';
    return pending > 0 && isConnected(phase) ? 'Saving' : PHASES[phase];
  },
  pending: (count) => `${count} pending`,
  conflicts: (count) => (count === 1 ? '1 conflict' : `${count} conflicts`),
};

function isConnected(phase: Status['phase']): boolean {
  return phase === 'live' || phase === 'polling' || phase === 'syncing';
}

function percent(share: number): number {
  return Math.floor(100 * Math.min(1, share));
}

const STYLE = `
:host { display: inline-flex; flex-wrap: wrap; align-items: center; gap: 0 0.5em; white-space: nowrap; font-variant-numeric: tabular-nums; --sync-color: #8a8f98 }
:host([hidden]) { display: none }
:host([phase=live]), :host([phase=polling]) { --sync-color: #1a9d5c }
:host([phase=syncing]), :host([phase=starting]) { --sync-color: #2f6fdd }
:host([phase=waiting]), :host([phase=unauthorized]) { --sync-color: #c77700 }
:host([phase=refused]), :host([phase=storage]) { --sync-color: #cf3034 }
[part=icon] { flex: none; box-sizing: border-box; width: 0.65em; height: 0.65em; border-radius: 50%;
  border: 0.14em solid var(--sync-color); background: var(--sync-color) }
:host([phase=stopped]) [part=icon], :host([phase=waiting]) [part=icon] { background: none }
:host([phase=syncing]) [part=icon], :host([phase=starting]) [part=icon] {
  background: none; border-right-color: transparent; animation: turn 0.8s linear infinite }
[part=progress] { width: 4em; height: 0.4em; accent-color: var(--sync-color) }
[part=conflicts] { color: #cf3034 }
span:empty { display: none }
[part=pending]::before, [part=conflicts]::before { content: '· ' }
@keyframes turn { to { rotate: 1turn } }
@media (prefers-reduced-motion: reduce) { [part=icon] { animation: none !important } }
`;

const PARTS = [['icon', 'i'], ['text', 'span'], ['progress', 'progress'], ['pending', 'span'], ['conflicts', 'span']] as const;

/** Where there are no elements, on a server, the class can be imported all the same. */
const Base = globalThis.HTMLElement ?? (class {} as typeof HTMLElement);

/**
 * `<sync-status>`: how a sync is doing, in a few words behind a coloured dot. The property `sync`
 * takes what `syncTables` returns, the attribute `phase` has its phase, and the parts `icon`,
 * `text`, `progress`, `pending` and `conflicts` can be styled.
 */
export class SyncStatusElement extends Base {
  #sync: Sync | undefined;
  #texts = ENGLISH;
  #end: (() => void) | undefined;

  get sync(): Sync | undefined {
    return this.#sync;
  }

  set sync(sync: Sync | undefined) {
    this.#sync = sync;
    if (this.isConnected) this.connectedCallback();
  }

  set texts(texts: Partial<Texts>) {
    this.#texts = { ...ENGLISH, ...texts };
    this.#show();
  }

  connectedCallback(): void {
    this.#end?.();
    // A property that was set before the element was defined hides the setter.
    if (Object.hasOwn(this, 'sync')) {
      this.#sync = this.sync;
      Reflect.deleteProperty(this, 'sync');
    }
    if (!this.shadowRoot) this.#build();
    this.#end = this.#sync?.status.subscribe(() => this.#show());
    this.#show();
  }

  disconnectedCallback(): void {
    this.#end?.();
    this.#end = undefined;
  }

  /** Without markup in a string and inline styles, which a page's policy may forbid. */
  #build(): void {
    const root = this.attachShadow({ mode: 'open' });
    const style = new CSSStyleSheet();
    style.replaceSync(STYLE);
    root.adoptedStyleSheets = [style];
    for (const [name, tag] of PARTS) {
      const part = document.createElement(tag);
      part.setAttribute('part', name);
      if (tag === 'span') part.setAttribute('role', 'status');
      else part.setAttribute('aria-hidden', 'true');
      root.append(part);
    }
  }

  #show(): void {
    const status = this.#sync?.status.value;
    if (!status || !this.shadowRoot) return;
    const { phase, pending, conflicts, progress } = status;
    this.setAttribute('phase', phase);
    this.#write('text', this.#texts.phase(status));
    this.#write('pending', pending > 0 ? this.#texts.pending(pending) : '');
    this.#write('conflicts', conflicts > 0 ? this.#texts.conflicts(conflicts) : '');
    const bar = this.#part<HTMLProgressElement>('progress');
    bar.hidden = progress === null;
    if (progress && progress.share !== null) bar.value = Math.min(1, progress.share);
    else bar.removeAttribute('value');
  }

  #part<E extends HTMLElement>(name: string): E {
    return this.shadowRoot!.querySelector<E>(`[part=${name}]`)!;
  }

  /** Only where it differs: a screen reader says what is written. */
  #write(name: string, text: string): void {
    const part = this.#part(name);
    if (part.textContent !== text) part.textContent = text;
  }
}

globalThis.customElements?.define('sync-status', SyncStatusElement);

declare global {
  interface HTMLElementTagNameMap {
    'sync-status': SyncStatusElement;
  }
}
