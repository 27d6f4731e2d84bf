// Runs the client of a stream in a README, with the least that it leaves to the app: what
// is kept is kept in memory. Prints a line of JSON for all that it does.
// Arguments: the README; {gateway, snapshots, stored}, where `snapshots` are the
// gateways to ask for snapshots, one after the other, the last one again and again.
'use strict';
const fs = require('node:fs');

const [, , readme, options] = process.argv;
const { gateway, snapshots, stored } = JSON.parse(options);
const [, snippet] = fs.readFileSync(readme, 'utf8').match(/```js\n([^]*?)```/);
const records = new Set();

const say = (what) => console.log(JSON.stringify(what));
const sayState = (name) => say({ [name]: stored.cursor, records: [...records].sort() });

let last = Promise.resolve();
function inTurn(task) {
  const done = last.then(() => task());
  last = done.catch(() => {});
  return done;
}

async function call(what, body) {
  const [url] = snapshots.length > 1 ? snapshots.splice(0, 1) : snapshots;
  const response = await fetch(`${url}/workspaces/team/${what}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  if (response.status !== 200) throw new Error(await response.text());
  return response.json();
}

async function store(values) {
  Object.assign(stored, values);
  say({ store: values });
}

async function apply({ changes, nextCursor, proof }) {
  for (const { pk, op } of changes) op === 'delete' ? records.delete(pk) : records.add(pk);
  Object.assign(stored, { cursor: nextCursor, proof });
  sayState('apply');
}

async function replace(items, { highWatermark, proof }) {
  records.clear();
  for (const { pk, kind } of items) if (kind !== 'tombstone') records.add(pk);
  const flags = { snapshotBegun: false, historyLost: false };
  Object.assign(stored, { cursor: highWatermark, proof, ...flags });
  sayState('replace');
}

// A browser's, less what the client does not use: it closes it on any error.
class EventSource extends EventTarget {
  #aborted = new AbortController();

  constructor(path) {
    super();
    say({ open: stored.cursor });
    const failed = () => this.#dispatch(new Event('error'));
    this.#read(gateway + path).then(failed, failed);
  }

  close() {
    this.#aborted.abort();
  }

  #dispatch(event) {
    if (!this.#aborted.signal.aborted) this.dispatchEvent(event);
  }

  async #read(url) {
    const { status, body } = await fetch(url, { signal: this.#aborted.signal });
    if (status !== 200) return;
    this.#dispatch(new Event('open'));
    let text = '';
    for await (const chunk of body.pipeThrough(new TextDecoderStream())) {
      const blocks = (text + chunk).split('\n\n');
      text = blocks.pop();
      blocks.forEach((block) => this.#dispatchBlock(block));
    }
  }

  #dispatchBlock(block) {
    const field = (name) => block.split('\n').filter((line) => line.startsWith(`${name}: `))
      .map((line) => line.slice(name.length + 2));
    const [name] = field('event');
    if (name) this.#dispatch(new MessageEvent(name, { data: field('data').join('\n') }));
  }
}

const app = { EventSource, stored, inTurn, call, store, apply, replace,
  setTimeout: (task, wait) => setTimeout(task, wait / 50) };
new Function(...Object.keys(app), `${snippet}\nopen();`)(...Object.values(app));
