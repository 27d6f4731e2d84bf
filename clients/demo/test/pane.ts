import type { Locator, Page } from 'playwright-core';

interface Stored {
  id: string;
  project: string;
  title: string;
}

/** A device as its user sees and uses it. */
export class Pane {
  readonly dialog: Locator;
  readonly #page: Page;
  readonly #root: Locator;
  readonly #user: string;

  constructor(page: Page, name: string) {
    this.#page = page;
    this.#user = name.toLowerCase();
    this.#root = page.getByRole('region', { name, exact: true });
    this.dialog = this.#root.getByRole('dialog');
  }

  /** `Offline · 2 pending`. */
  async status(): Promise<string> {
    const texts = await this.#root.locator('sync-status').locator('span').allTextContents();
    return texts.filter(Boolean).join(' · ');
  }

  /** Titles of the chosen list, those of done ones with a mark. */
  async todos(): Promise<string[]> {
    return await this.#root.locator('.todos li:not(.empty)').evaluateAll((items) => items.map((item) => (
      `${item.matches('.done') ? '✓ ' : ''}${item.querySelector('button.title')?.textContent}`
    )));
  }

  async lists(): Promise<string[]> {
    return await this.#root.getByRole('navigation').getByRole('button').allTextContents();
  }

  async choose(list: string): Promise<void> {
    await this.#root.getByRole('navigation').getByRole('button', { name: list }).click();
    await this.#root.getByLabel(`Add to ${list}`).waitFor();
  }

  async addList(title: string): Promise<void> {
    await this.#root.getByLabel('Add a list').click();
    const input = this.#root.getByLabel('Title of the list');
    await input.fill(title);
    await input.press('Enter');
    await this.#root.getByLabel(`Add to ${title}`).waitFor();
  }

  async add(title: string): Promise<void> {
    const input = this.#root.getByLabel(/^Add to/);
    await input.fill(title);
    await input.press('Enter');
  }

  async rename(title: string, to: string): Promise<void> {
    await this.#root.getByRole('button', { name: title, exact: true }).click();
    const input = this.#root.getByLabel(`Title of ${title}`);
    await input.fill(to);
    await input.press('Enter');
    await this.#root.getByRole('button', { name: to, exact: true }).waitFor();
  }

  async tick(title: string): Promise<void> {
    await this.#root.getByLabel(`Done: ${title}`).click();
    await this.#root.locator('li.done').filter({ hasText: title }).waitFor();
  }

  async remove(title: string): Promise<void> {
    await this.#root.getByRole('listitem').filter({ hasText: title }).hover();
    await this.#root.getByLabel(`Delete ${title}`).click();
    await this.#root.getByLabel(`Delete ${title}`).waitFor({ state: 'detached' });
  }

  async goOffline(): Promise<void> {
    await this.#root.getByRole('switch', { name: 'Online' }).uncheck();
    await this.#root.locator('sync-status[phase=waiting]').waitFor();
  }

  async goOnline(): Promise<void> {
    await this.#root.getByRole('switch', { name: 'Offline' }).check();
    await this.#root.locator('sync-status[phase=live]').waitFor();
  }

  /** Follows a project, or no longer. */
  async follow(project: string, isFollowed = true): Promise<void> {
    await this.#root.locator('.project').filter({ hasText: project }).click();
    await this.#root.getByRole('switch', { name: project, checked: isFollowed }).waitFor();
  }

  /** What the conflict's dialog shows. */
  async sides(): Promise<string[]> {
    return await this.dialog.locator('dl').evaluateAll((sides) => sides.map((side) => (
      [...side.children].map(({ textContent }) => textContent).join(': ')
    )));
  }

  async merge(title: string): Promise<void> {
    const input = this.dialog.getByLabel('Another title');
    await input.fill(title);
    await input.press('Enter');
    await this.dialog.waitFor({ state: 'detached' });
  }

  /** The rows in the browser's database. */
  async stored(): Promise<Stored[]> {
    return await this.#page.evaluate(async (user) => {
      const databases = await indexedDB.databases();
      const name = databases.find((database) => database.name!.startsWith(`todos-${user}-`))!.name!;
      const done = <T>(request: IDBRequest<T>) => new Promise<T>((resolve, reject) => {
        request.onsuccess = () => resolve(request.result);
        request.onerror = () => reject(request.error);
      });
      const db = await done(indexedDB.open(name));
      const transaction = db.transaction(['lists', 'todos']);
      const [lists, todos] = await Promise.all(['lists', 'todos'].map((table) => done(transaction.objectStore(table).getAll())));
      db.close();
      return [...lists!, ...todos!];
    }, this.#user);
  }

  /** The records that the server has. */
  async onServer(): Promise<Stored[]> {
    return await this.#page.evaluate(async (user) => {
      const response = await fetch('/sync/workspaces/home/snapshot', {
        method: 'POST',
        headers: { 'content-type': 'application/json', 'x-user-id': user },
        body: '{}',
      });
      const { items } = await response.json() as { items: { kind: string; payload: Stored }[] };
      return items.filter(({ kind }) => kind === 'row').map(({ payload }) => payload);
    }, this.#user);
  }

  /** The titles of all that the server has. */
  async titlesOnServer(): Promise<string[]> {
    return (await this.onServer()).map(({ title }) => title);
  }
}
