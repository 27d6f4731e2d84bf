import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Browser, type BrowserContext, type CDPSession, type Page, chromium } from 'playwright-core';
import { args, executablePath, slowDown } from '../../../support/chromium.ts';
import { BROWSER_PATIENCE } from '../../../support/patience.ts';

export const hasChromium = executablePath !== undefined;

/** Timers of a hidden tab wait for the next second, but not, as they would for minutes where pages
 * are slow, until it has used little time of the processor; nor does its process come last. */
const HIDDEN = ['--disable-features=ExpensiveBackgroundTimerThrottling', '--disable-renderer-backgrounding'];

/** A browser with a profile of its own on the disk, of one user. Its tabs are hidden and frozen as
 * a window's are: playwright would keep each one visible in a browser that it starts itself. */
export class Chromium {
  readonly context: BrowserContext;
  readonly #browser: Browser;
  readonly #process: ChildProcess;

  private constructor(browser: Browser, process: ChildProcess) {
    this.#browser = browser;
    this.#process = process;
    this.context = browser.contexts()[0]!;
    this.context.setDefaultTimeout(BROWSER_PATIENCE);
  }

  static async start(): Promise<Chromium> {
    for (let tries = 1; ; tries += 1) {
      const { process, address } = await Chromium.#launch();
      try {
        const options = { noDefaults: true, timeout: BROWSER_PATIENCE / 2 };
        return new Chromium(await chromium.connectOverCDP(address, options), process);
      } catch (error) {
        // About one in two hundred never answers.
        process.stdin!.end();
        if (tries === 3) throw error;
      }
    }
  }

  static async #launch(): Promise<{ process: ChildProcess; address: string }> {
    const folder = mkdtempSync(join(tmpdir(), 'sync-ext-chromium-'));
    // Ends with the program that it is started for, however that ends.
    const script = '"$@" < /dev/null & read -r _; kill $!; wait $!; rm -rf "$0"';
    const options = ['--headless', '--remote-debugging-port=0', `--user-data-dir=${folder}`, ...args, ...HIDDEN];
    const process = spawn('sh', ['-c', script, folder, executablePath!, ...options], {
      detached: true,
      stdio: ['pipe', 'ignore', 'pipe'],
    });
    const address = await new Promise<string>((resolve, reject) => {
      let printed = '';
      process.stderr.setEncoding('utf8').on('data', (text: string) => {
        printed += text;
        const found = /DevTools listening on (ws:\S+)/.exec(printed);
        if (found) resolve(found[1]!);
      });
      process.stderr.once('close', () => reject(new Error(`Chromium has ended: ${printed}`)));
    });
    return { process, address };
  }

  /** A new tab, in front of the others. */
  async tab(url: string): Promise<Tab> {
    const page = await this.context.newPage();
    const tab = new Tab(page, await this.context.newCDPSession(page));
    await slowDown(tab.devtools);
    await page.goto(url);
    return tab;
  }

  async closeTabs(): Promise<void> {
    // One stays, so that the window does.
    for (const page of this.context.pages()) if (page.url() !== 'about:blank') await page.close();
  }

  /** Forgets what the pages of an origin have stored. */
  async clear(origin: string): Promise<void> {
    const devtools = await this.context.newCDPSession(this.context.pages()[0]!);
    await devtools.send('Storage.clearDataForOrigin', { origin, storageTypes: 'all' });
    await devtools.detach();
  }

  async stop(): Promise<void> {
    await this.#browser.close();
    this.#process.stdin!.end();
    await once(this.#process, 'exit');
  }
}

export class Tab {
  readonly page: Page;
  readonly devtools: CDPSession;

  constructor(page: Page, devtools: CDPSession) {
    this.page = page;
    this.devtools = devtools;
  }

  /** In front of the window's other tabs, which are hidden then. */
  async show(): Promise<void> {
    await this.page.bringToFront();
  }

  /** As a browser does with a tab that has been hidden for long: no timer and no answer reaches it
   * any more; nor does what other tabs send, which Chromium would still deliver. */
  async freeze(): Promise<void> {
    await this.devtools.send('Page.setWebLifecycleState', { state: 'frozen' });
    await this.devtools.send('Debugger.enable');
    await this.devtools.send('Debugger.pause');
  }

  async thaw(): Promise<void> {
    await this.devtools.send('Debugger.disable');
    await this.devtools.send('Page.setWebLifecycleState', { state: 'active' });
  }

  /** Ends its process, so that it can clean up nothing. */
  async crash(): Promise<void> {
    const crashed = this.page.waitForEvent('crash');
    // There is no answer to it.
    this.devtools.send('Page.crash').catch(() => {});
    await crashed;
  }

  /** How many bytes the pages of its origin may store while it is open; by default as many as the
   * disk allows. */
  async limit(quotaSize?: number): Promise<void> {
    const { origin } = new URL(this.page.url());
    await this.devtools.send('Storage.overrideQuotaForOrigin', { origin, ...(quotaSize !== undefined && { quotaSize }) });
  }

  async close(): Promise<void> {
    await this.page.close();
  }
}
