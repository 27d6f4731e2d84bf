import { type Browser, type Page, chromium } from 'playwright-core';
import { type PreviewServer, preview } from 'vite';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { args, executablePath, slowDown } from '../../support/chromium.ts';
import { BROWSER_PATIENCE } from '../../support/patience.ts';
import { Pane } from './pane.ts';

describe.skipIf(!executablePath)('a tour of the demo', () => {
  let server: PreviewServer;
  let browser: Browser;
  let page: Page;
  let ann: Pane;
  let bob: Pane;
  const errors: string[] = [];
  /** The projects that Bob follows. */
  let bobs = ['Home'];

  beforeAll(async () => {
    server = await preview({ preview: { port: 0 }, logLevel: 'error' });
    browser = await chromium.launch({ executablePath: executablePath!, args, timeout: BROWSER_PATIENCE });
    const baseURL = server.resolvedUrls!.local[0]!;
    const context = await browser.newContext({ baseURL, viewport: { width: 1280, height: 800 }, reducedMotion: 'reduce' });
    context.setDefaultTimeout(BROWSER_PATIENCE);
    page = await context.newPage();
    await slowDown(await context.newCDPSession(page));
    page.on('pageerror', (error) => errors.push(String(error)));
    page.on('console', (message) => {
      if (message.type() === 'error') errors.push(message.text());
    });
    await page.goto('/');
    [ann, bob] = [new Pane(page, 'Ann'), new Pane(page, 'Bob')];
  });

  afterAll(async () => {
    await browser?.close();
    await server?.close();
  });

  /** Whether a pane has a list of the project Office. */
  const hasLaunch = async (pane: Pane) => (await pane.lists()).some((list) => list.startsWith('Launch'));

  async function isEqual(): Promise<void> {
    await vi.waitFor(async () => {
      expect([await ann.status(), await bob.status()]).toEqual(['Up to date', 'Up to date']);
      const onServer = await ann.onServer();
      expect(await ann.stored()).toEqual(onServer);
      expect(await bob.stored()).toEqual(onServer.filter(({ project }) => bobs.includes(project)));
    }, { timeout: BROWSER_PATIENCE });
  }

  test('both devices begin with what the database has', async () => {
    await expect.poll(() => ann.todos()).toEqual(['Milk', 'Bread', 'Six eggs', '✓ Coffee', 'Tomatoes', 'Lemons']);
    await expect.poll(() => bob.todos()).toEqual(await ann.todos());
    await isEqual();
  });

  test('what one of them adds, the other one sees', async () => {
    await ann.add('Dark chocolate');
    await expect.poll(() => bob.todos()).toContain('Dark chocolate');
    await bob.addList('Holidays');
    await bob.add('Book the train');
    await expect.poll(() => ann.lists()).toContain('Holidays 1');
    await bob.choose('Groceries');
    await expect.poll(() => bob.todos()).toContain('Tomatoes');
    await ann.remove('Tomatoes');
    await expect.poll(() => bob.todos()).not.toContain('Tomatoes');
    await isEqual();
  });

  test('a project is followed from now on, no longer, and as soon as the server can be reached', async () => {
    await expect.poll(() => ann.lists()).toContain('Launch 3');
    expect(await hasLaunch(bob)).toBe(false);
    await bob.follow('Office');
    await expect.poll(() => bob.lists()).toContain('Launch 3');
    bobs = ['Home', 'Office'];
    await isEqual();
    await bob.choose('Launch');
    await ann.choose('Launch');
    await ann.add('Thank everybody');
    await expect.poll(() => bob.todos()).toContain('Thank everybody');
    await bob.follow('Office', false);
    await expect.poll(() => hasLaunch(bob)).toBe(false);
    bobs = ['Home'];
    await isEqual();
    await bob.goOffline();
    await bob.follow('Office');
    await ann.add('Sleep');
    await expect.poll(() => ann.titlesOnServer()).toContain('Sleep');
    expect(await hasLaunch(bob)).toBe(false);
    await bob.goOnline();
    await expect.poll(() => bob.lists()).toContain('Launch 5');
    await bob.goOffline();
    await bob.choose('Launch');
    await bob.add('Clean up');
    await bob.follow('Office', false);
    await bob.goOnline();
    await expect.poll(() => hasLaunch(bob)).toBe(false);
    await expect.poll(() => ann.todos()).toContain('Clean up');
    await ann.choose('Groceries');
    await bob.choose('Groceries');
    await isEqual();
  });

  test('what plain SQL changes, both see', async () => {
    await page.getByLabel('Run INSERT INTO lists').click();
    await page.getByLabel('Run UPDATE todos SET done = true').click();
    for (const pane of [ann, bob]) {
      await expect.poll(() => pane.lists()).toContain('Birthday 0');
      await expect.poll(() => pane.todos()).toContain('✓ Bread');
    }
    await isEqual();
  });

  test('edits of both while offline: by field they merge, of the same field a user decides', async () => {
    await ann.goOffline();
    await bob.goOffline();
    await ann.rename('Milk', 'Oat milk');
    await ann.tick('Lemons');
    await bob.rename('Milk', 'Two bottles of milk');
    await bob.rename('Lemons', 'Limes');
    await expect.poll(() => ann.status()).toBe('Offline · 2 pending');
    await expect.poll(() => bob.status()).toBe('Offline · 2 pending');
    await expect.poll(() => bob.todos()).toContain('Limes');
    await bob.goOnline();
    await expect.poll(() => bob.status()).toBe('Up to date');
    await bob.goOffline();
    await bob.add('Sparkling water');
    await bob.tick('Six eggs');
    await ann.goOnline();
    await ann.dialog.waitFor();
    await expect.poll(() => ann.status()).toBe('Up to date · 1 conflict');
    await expect.poll(() => bob.status()).toBe('Offline · 2 pending');
    await expect.poll(() => ann.todos()).toContain('✓ Limes');
    await expect.poll(() => ann.todos()).toContain('Two bottles of milk');
    await expect.poll(() => ann.sides()).toEqual(['Yours: Oat milk', 'Theirs: Two bottles of milk']);
    const { DEMO_PICTURE: path } = process.env;
    if (path) await page.screenshot({ path });
    await ann.merge('Two bottles of oat milk');
    await bob.goOnline();
    await expect.poll(() => bob.todos())
      .toEqual(['Two bottles of oat milk', '✓ Bread', '✓ Six eggs', '✓ Coffee', '✓ Limes', 'Dark chocolate', 'Sparkling water']);
    await isEqual();
  });

  test.each([['Keep mine', 'Rye bread'], ['Keep theirs', 'White bread']])('%s', async (choice, expected) => {
    await ann.goOffline();
    await bob.goOffline();
    await ann.rename('Bread', 'White bread');
    await bob.rename('Bread', 'Rye bread');
    await ann.goOnline();
    await expect.poll(() => ann.titlesOnServer()).toContain('White bread');
    await bob.goOnline();
    await bob.dialog.getByRole('button', { name: choice }).click();
    for (const pane of [ann, bob]) await expect.poll(() => pane.todos()).toContain(`✓ ${expected}`);
    await isEqual();
    await ann.rename(expected, 'Bread');
    await expect.poll(() => bob.todos()).toContain('✓ Bread');
  });

  test('both want the same: there is nothing to decide', async () => {
    await ann.goOffline();
    await bob.goOffline();
    for (const pane of [ann, bob]) await pane.tick('Dark chocolate');
    await ann.goOnline();
    await bob.goOnline();
    await isEqual();
  });

  test('what one deletes and the other edits, comes back if that one wants it', async () => {
    await ann.goOffline();
    await bob.goOffline();
    await ann.remove('Limes');
    await bob.rename('Limes', 'Green limes');
    await ann.goOnline();
    await expect.poll(() => ann.titlesOnServer()).not.toContain('Limes');
    await bob.goOnline();
    await expect.poll(() => bob.sides()).toEqual(['Yours: Green limes', 'Theirs: deleted']);
    await bob.dialog.getByRole('button', { name: 'Keep mine' }).click();
    await expect.poll(() => ann.todos()).toContain('✓ Green limes');
    await isEqual();
  });

  test('what the database refuses can be mended or given up', async () => {
    const long = 'A title that is longer than the sixty characters which the table allows';
    await ann.add(long);
    await ann.dialog.getByText('title_is_short').waitFor();
    await expect.poll(() => ann.todos()).not.toContain(long);
    await ann.merge('A short title');
    await expect.poll(() => bob.todos()).toContain('A short title');
    await ann.add(long);
    await ann.dialog.getByRole('button', { name: 'Give it up' }).click();
    await ann.dialog.waitFor({ state: 'detached' });
    await isEqual();
  });

  test('edits that were not sent survive a reload', async () => {
    await ann.goOffline();
    await ann.add('Paper towels');
    await expect.poll(() => ann.status()).toBe('Offline · 1 pending');
    await page.reload();
    await expect.poll(() => ann.status()).toBe('Offline · 1 pending');
    await expect.poll(() => ann.todos()).toContain('Paper towels');
    await expect.poll(() => bob.status()).toBe('Up to date');
    await expect.poll(() => bob.todos()).toContain('A short title');
    expect(await bob.todos()).not.toContain('Paper towels');
    await ann.goOnline();
    await expect.poll(() => bob.todos()).toContain('Paper towels');
    await isEqual();
  });

  test('a second tab shows and decides the same conflict', async () => {
    const other = await page.context().newPage();
    await slowDown(await page.context().newCDPSession(other));
    await other.goto('/?user=ann');
    const second = new Pane(other, 'Ann');
    await expect.poll(() => second.todos()).toContain('Paper towels');
    await ann.goOffline();
    await ann.rename('Six eggs', 'Ten eggs');
    await bob.rename('Six eggs', 'Twelve eggs');
    await expect.poll(() => bob.titlesOnServer()).toContain('Twelve eggs');
    await ann.goOnline();
    for (const pane of [ann, second]) {
      await expect.poll(() => pane.sides()).toEqual(['Yours: Ten eggs', 'Theirs: Twelve eggs']);
    }
    await second.dialog.getByRole('button', { name: 'Keep mine' }).click();
    for (const pane of [ann, second]) await pane.dialog.waitFor({ state: 'detached' });
    await expect.poll(() => bob.todos()).toContain('✓ Ten eggs');
    await isEqual();
    await other.close();
  });

  test('nothing was logged as an error', () => {
    expect(errors).toEqual([]);
  });
});
