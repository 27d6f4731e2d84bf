/** The browser of the tests that need one. */
import { existsSync } from 'node:fs';
import type { CDPSession } from 'playwright-core';

/** Where it is: `CHROMIUM` names it, by default it is the system's. Undefined: there is none. */
export const executablePath = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome']
  .find((path) => path && existsSync(path));

if (!executablePath) console.log('not tested: there is no Chromium (CHROMIUM=path)');

/** What it is started with: it calls nobody by itself. */
export const args = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** How many times slower its pages compute: `SYNC_EXT_CPU_SLOWDOWN`. */
const rate = Number(process.env.SYNC_EXT_CPU_SLOWDOWN ?? 1);

/** Slows a page down as long as the session is open. */
export async function slowDown(devtools: CDPSession): Promise<void> {
  if (rate > 1) await devtools.send('Emulation.setCPUThrottlingRate', { rate });
}
