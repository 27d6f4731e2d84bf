/**
 *     npm run proof -- --seed 7 --minutes 5     histories of 300 steps from that seed on
 *     npm run proof -- --short                  the first hundred, of 40 steps
 *     npm run proof -- --seed 7 --histories 1 --steps 40
 *     npm run proof -- --seed 7 --replay FILE   the steps of a failure, one a line; --trace for what passes
 *     npm run proof -- --bug NAME               with a bug in it, see bugs.ts
 *     npm run proof -- --bugs                   with each, demanding that the first hundred find it
 */
import { setMaxListeners } from 'node:events';
import { readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type vm from 'node:vm';
import { Backend } from './backend.ts';
import { BUGS } from './bugs.ts';
import { type History, type Step, historyOf } from './history.ts';
import { programOf } from './program.ts';
import { shorten } from './shorten.ts';
import { Tally } from './tally.ts';
import { World } from './world.ts';

const SHORT = { histories: 100, steps: 40 };
const LONG = 300;
/** Milliseconds for looking for a shorter history. */
const SHORTENING = 120_000;
/** The database is renewed after so many histories. */
const RENEWAL = 50;

const { values: options } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    minutes: { type: 'string' },
    histories: { type: 'string' },
    steps: { type: 'string' },
    short: { type: 'boolean', default: false },
    bug: { type: 'string' },
    bugs: { type: 'boolean', default: false },
    /** Plays these steps, as a failure prints them, with the clients of the seed. */
    replay: { type: 'string' },
    trace: { type: 'boolean', default: false },
    shorten: { type: 'boolean', default: true },
  },
  allowNegative: true,
});

// Each call of a client may end with a signal that lives as long as its tab.
setMaxListeners(0);

const folder = dirname(dirname(fileURLToPath(import.meta.url)));
let played = 0;

/** Nothing may fail without somebody who takes care of it. */
let unhandled: unknown[] = [];
process.on('unhandledRejection', (reason) => unhandled.push(reason));

async function play(history: History, backend: Backend, program: vm.Script): Promise<Tally> {
  if (played > 0 && played % RENEWAL === 0) await backend.renew();
  const world = new World(history, `w${++played}`, backend, program);
  if (options.trace) world.watch.trace = (text) => console.log(`${world.time.now} ${text}`);
  unhandled = [];
  await world.play();
  if (unhandled.length > 0) throw new Error(`nobody took care of ${(unhandled[0] as Error).stack}`);
  world.tally.add('histories');
  return world.tally;
}

async function main(): Promise<number> {
  const bug = options.bug === undefined ? [] : BUGS.filter(({ name }) => name === options.bug);
  if (options.bug !== undefined && bug.length === 0) throw new Error(`no bug is named ${options.bug}`);
  const program = await programOf(folder, bug);
  const backend = await Backend.start();
  const begun = performance.now();
  const end = options.minutes ? begun + Number(options.minutes) * 60_000 : Infinity;
  const histories = Number(options.histories ?? (options.minutes ? Infinity : options.short ? SHORT.histories : 1));
  const steps = Number(options.steps ?? (options.short ? SHORT.steps : LONG));
  const total = new Tally();
  try {
    for (let i = 0; i < histories && performance.now() < end; i++) {
      const history = historyOf(Number(options.seed) + i, steps);
      if (options.replay) history.steps = readSteps(options.replay);
      try {
        total.addAll(await play(history, backend, program));
      } catch (error) {
        await report(history, error as Error, backend, program);
        return 1;
      }
    }
    const seconds = Math.round((performance.now() - begun) / 1000);
    console.log(`${total}\n${total.counts.get('histories')} histories of ${steps} steps in ${seconds} s, from seed ${options.seed}: no edit lost`);
    return 0;
  } finally {
    await backend.stop();
  }
}

function readSteps(file: string): Step[] {
  return readFileSync(file, 'utf8').split('\n').filter((line) => line.trim() !== '').map((line) => JSON.parse(line) as Step);
}

async function report(history: History, failure: Error, backend: Backend, program: vm.Script): Promise<void> {
  console.error(`seed ${history.seed}, ${history.steps.length} steps: ${failure.stack}`);
  if (!options.shorten) return;
  await backend.renew();
  let last = failure;
  const steps = await shorten(history.steps, async (steps) => {
    try {
      await play({ ...history, steps }, backend, program);
      return false;
    } catch (error) {
      last = error as Error;
      await backend.renew();
      return true;
    }
  }, SHORTENING);
  const lines = steps.map((step) => `  ${JSON.stringify(step)}`);
  console.error(`clients:\n${history.clients.map((client) => `  ${JSON.stringify(client)}`).join('\n')}`);
  console.error(`the shortest history found, ${steps.length} steps:\n${lines.join('\n')}\n${last.message}`);
}

/** Plays the short histories with each bug. Returns how many bugs they do not find. */
async function seek(): Promise<number> {
  const backend = await Backend.start();
  let missed = 0;
  try {
    for (const bug of BUGS) {
      const program = await programOf(folder, [bug]);
      const found = await firstFailure(backend, program);
      console.log(found ? `seed ${found.seed} finds ${bug.name}: ${found.message}` : `nothing finds ${bug.name}`);
      if (found) await backend.renew();
      else missed++;
    }
    console.log(`${BUGS.length - missed} of ${BUGS.length} bugs are found`);
    return missed;
  } finally {
    await backend.stop();
  }
}

async function firstFailure(backend: Backend, program: vm.Script): Promise<{ seed: number; message: string } | undefined> {
  for (let seed = 1; seed <= SHORT.histories; seed++) {
    try {
      await play(historyOf(seed, SHORT.steps), backend, program);
    } catch (error) {
      return { seed, message: (error as Error).message.split('\n')[0]!.slice(0, 200) };
    }
  }
  return undefined;
}

process.exitCode = options.bugs ? await seek() : await main();
process.exit();
