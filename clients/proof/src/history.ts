/** Histories: steps that follow from a seed, each complete in itself, so that a history can be
 * cut down and still be played. Whom and what they are about are numbers, taken modulo what there
 * is. */
import { Random } from './random.ts';

export interface Step {
  /** Milliseconds after the step before; below zero, so many turns of the event loop, in which
   * that one may still be under way. */
  wait: number;
  action: Action;
}

export type WriteKind =
  | 'add' | 'put' | 'update' | 'modify' | 'strip' | 'delete'
  | 'bulkPut' | 'bulkAdd' | 'bulkDelete' | 'clear' | 'range';

export interface Write {
  kind: WriteKind;
  table: string;
  pk: number;
  /** Which fields, and what they become. */
  fields: number;
  value: number;
}

export interface Edit {
  writes: Write[];
  isTransaction: boolean;
  isAborted: boolean;
}

export type Resolution = 'keepMine' | 'keepTheirs' | 'merge';
export type Call = 'push' | 'pull' | 'snapshot' | 'cursor' | 'live' | 'any';
export type FaultKind =
  | 'lostRequest' | 'lostReply' | 'slowRequest' | 'slowReply' | 'twice'
  | 'unavailable' | 'badGateway' | 'unauthorized' | 'cut'
  /** All that may be purged is, past what the reply tells of. */
  | 'purge';

export interface Fault {
  kind: FaultKind;
  on: Call;
  /** Milliseconds. */
  delay: number;
  /** What is lost is never answered; else the call fails. */
  isSilent: boolean;
}

export type Action =
  | { kind: 'edit'; client: number; tab: number; edit: Edit }
  | { kind: 'resolve'; client: number; tab: number; which: number; how: Resolution; value: number | null }
  | { kind: 'discard'; client: number; tab: number; which: number }
  | { kind: 'retry' | 'stop' | 'start' | 'close' | 'show' | 'hide'; client: number; tab: number }
  /** In the middle of so many requests to its database; opened again after some time. */
  | { kind: 'kill'; client: number; tab: number; after: number; reopen: number }
  | { kind: 'fault'; client: number; fault: Fault }
  | { kind: 'offline'; client: number; time: number }
  | { kind: 'cutStreams'; client: number; isSilent: boolean }
  | { kind: 'wrongClock'; client: number; offset: number }
  | { kind: 'evict' | 'upgrade'; client: number }
  | { kind: 'role'; client: number; role: 'viewer' | 'editor' | 'none'; time: number }
  | { kind: 'purge'; sleepers: number }
  | { kind: 'killServer' | 'killGateway'; time: number }
  | { kind: 'backup' | 'restore' }
  | { kind: 'drop'; time: number }
  /** Other scopes are wished for; null: all. */
  | { kind: 'scopes'; client: number; tab: number; list: string[] | null }
  | { kind: 'backend'; write: 'insert' | 'update' | 'delete' | 'put'; pk: number; value: number };

export interface ClientSetup {
  tabs: number;
  /** Web Locks. */
  hasLocks: boolean;
  /** It pulls the tables of its app alone. */
  isFiltered: boolean;
  /** Without a stream it pulls again and again. */
  isLive: boolean;
  /** The version of its app. */
  version: number;
  pushLimit: number;
  pageLimit: number;
  /** Milliseconds by which its clock is wrong. */
  offset: number;
  /** The scopes that it follows from its first start on; null: all. */
  scopes: string[] | null;
}

export interface History {
  seed: number;
  /** There are records before anybody comes. */
  isFilled: boolean;
  clients: ClientSetup[];
  steps: Step[];
}

export const TABLES = ['notes', 'files', 'cards', 'lists', 'todos'];
/** Those whose records have scopes, in the field `in`. */
export const SCOPED = ['notes', 'files'];
const SCOPES = ['', 'p0', 'p1', 'p2'];

export function historyOf(seed: number, length: number): History {
  const random = new Random(seed);
  const clients = Array.from({ length: random.between(3, 5) }, () => clientOf(random));
  const temper = temperOf(random);
  const isFilled = random.chance(0.3);
  const isRestored = temper.weights.some(([, kind]) => kind === 'restore');
  const steps: Step[] = Array.from({ length }, () => ({ wait: waitOf(random), action: actionOf(random, temper) }));
  // What was backed up long before takes much with it.
  if (isRestored) {
    steps[length >> 2] = { wait: 0, action: { kind: 'backup' } };
    steps[(3 * length) >> 2] = { wait: 0, action: { kind: 'restore' } };
  }
  return { seed, isFilled, clients, steps };
}

function clientOf(random: Random): ClientSetup {
  return {
    tabs: random.weighted([[3, 1], [2, 2]]),
    hasLocks: random.chance(0.5),
    isFiltered: random.chance(0.15),
    isLive: random.chance(0.75),
    version: random.weighted([[1, 1], [2, 2]]),
    pushLimit: random.pick([1, 3, 500, 500]),
    pageLimit: random.pick([1, 2, 5, 1000, 1000]),
    offset: random.weighted([
      [3, () => 0],
      [2, () => random.between(-5, 5) * 1000],
      [1, () => random.between(-1000, 1000) * 86_400_000],
    ])(),
    scopes: random.chance(0.35) ? null : listOf(random),
  };
}

function listOf(random: Random): string[] {
  return SCOPES.filter(() => random.chance(0.5));
}

type Kind = Action['kind'];

/** Histories differ: in what goes wrong, and how crowded the records are. */
interface Temper {
  weights: [number, Kind][];
  crowd: number;
  tables: string[];
}

function temperOf(random: Random): Temper {
  const often = (share: number, weight: number) => (random.chance(share) ? weight : 0);
  return {
    crowd: random.pick([1, 2, 4]),
    tables: random.chance(0.3) ? [random.pick(TABLES)] : TABLES,
    weights: [
      [50, 'edit'],
      [4, 'resolve'],
      [2, 'discard'],
      [3, 'retry'],
      [2, 'stop'],
      [3, 'start'],
      [1, 'close'],
      [1, 'show'],
      [1, 'hide'],
      [often(0.6, 8), 'kill'],
      [often(0.8, 16), 'fault'],
      [often(0.5, 4), 'offline'],
      [often(0.5, 4), 'cutStreams'],
      [often(0.4, 3), 'wrongClock'],
      [often(0.2, 2), 'evict'],
      [often(0.4, 4), 'upgrade'],
      [often(0.25, 3), 'role'],
      [often(0.4, 5), 'purge'],
      [often(0.1, 2), 'killServer'],
      [often(0.1, 2), 'killGateway'],
      ...(random.chance(0.3) ? [[3, 'backup'], [3, 'restore']] as [number, Kind][] : []),
      [often(0.15, 2), 'drop'],
      [3, 'backend'],
      [often(0.6, 8), 'scopes'],
    ],
  };
}

function waitOf(random: Random): number {
  return random.weighted([
    [4, () => -random.between(1, 30)],
    [3, () => 0],
    [5, () => random.between(1, 200)],
    [4, () => random.between(200, 5000)],
    [1, () => random.between(5000, 90_000)],
  ])();
}

function actionOf(random: Random, temper: Temper): Action {
  const kind = random.weighted(temper.weights.map(([weight, kind]) => [weight, kind] as const));
  const [client, tab] = [random.below(60), random.below(2)];
  switch (kind) {
    case 'edit':
      return { kind, client, tab, edit: editOf(random, temper) };
    case 'resolve': {
      const how = random.pick(['keepMine', 'keepTheirs', 'merge'] as const);
      return { kind, client, tab, which: random.below(60), how, value: random.chance(0.2) ? null : random.below(1000) };
    }
    case 'discard':
      return { kind, client, tab, which: random.below(60) };
    case 'kill':
      return { kind, client, tab, after: random.between(1, 40), reopen: random.pick([0, 10, 1000, 30_000]) };
    case 'fault':
      return { kind, client, fault: faultOf(random) };
    case 'offline':
      return { kind, client, time: random.between(10, 60_000) };
    case 'cutStreams':
      return { kind, client, isSilent: random.chance(0.3) };
    case 'wrongClock':
      return { kind, client, offset: random.between(-1, 1) * random.pick([10, 5000, 86_400_000, 1e11]) };
    case 'evict':
    case 'upgrade':
      return { kind, client };
    case 'role':
      return { kind, client, role: random.pick(['viewer', 'none']), time: random.between(10, 20_000) };
    case 'purge':
      return { kind, sleepers: random.chance(0.5) ? 31 : random.below(32) };
    case 'killServer':
    case 'killGateway':
      return { kind, time: random.pick([0, 500, 10_000]) };
    case 'backup':
    case 'restore':
      return { kind };
    case 'drop':
      return { kind, time: random.pick([0, 100, 5000]) };
    case 'scopes':
      return { kind, client, tab, list: random.chance(0.1) ? null : listOf(random) };
    case 'backend':
      return {
        kind,
        write: random.pick(['insert', 'update', 'delete', 'put']),
        pk: random.below(temper.crowd),
        value: random.below(1000),
      };
    default:
      return { kind, client, tab };
  }
}

function editOf(random: Random, temper: Temper): Edit {
  const isTransaction = random.chance(0.3);
  const count = isTransaction ? random.between(1, 4) : 1;
  return {
    writes: Array.from({ length: count }, () => writeOf(random, temper)),
    isTransaction,
    isAborted: isTransaction && random.chance(0.25),
  };
}

function writeOf(random: Random, { tables, crowd }: Temper): Write {
  const kind = random.weighted<WriteKind>([
    [4, 'add'], [8, 'put'], [14, 'update'], [2, 'modify'], [2, 'strip'], [6, 'delete'],
    [2, 'bulkPut'], [1, 'bulkAdd'], [1, 'bulkDelete'], [0.5, 'clear'], [0.5, 'range'],
  ]);
  return { kind, table: random.pick(tables), pk: random.below(crowd), fields: random.below(8), value: random.below(1000) };
}

function faultOf(random: Random): Fault {
  const kind = random.weighted<FaultKind>([
    [3, 'lostRequest'], [5, 'lostReply'], [2, 'slowRequest'], [4, 'slowReply'], [2, 'twice'],
    [1, 'unavailable'], [1, 'badGateway'], [1, 'unauthorized'], [1, 'cut'], [4, 'purge'],
  ]);
  return {
    kind,
    on: random.weighted<Call>(kind === 'purge'
      ? [[3, 'snapshot'], [1, 'pull']]
      : [[5, 'push'], [4, 'pull'], [1, 'snapshot'], [1, 'cursor'], [1, 'live'], [4, 'any']]),
    delay: random.pick([50, 500, 3000, 20_000, 70_000]),
    isSilent: random.chance(0.3),
  };
}
