/**
 * A Postgres server with the extension, for the tests of one program, and gateways beside
 * it. Both end when they are stopped, and also when the program ends first, however it
 * does.
 *
 *     const cluster = await Cluster.start({ settings: { max_connections: 50 } })
 *     const database = await cluster.createDatabase()
 *     const pool = new pg.Pool(cluster.connection(database))
 *     const gateway = await cluster.startGateway(database, { env: { GATEWAY_HEARTBEAT: '1' } })
 *     ...
 *     await cluster.stop()
 *
 * Where several processes share one, another one takes `Cluster.at(cluster.address)`.
 *
 * `SYNC_EXT_PG_BIN` names Postgres' programs, `SYNC_EXT_RUN_DIR` the folder for the
 * cluster, `SYNC_EXT_GATEWAY` the gateway's program; the scripts set them. By default they
 * are where `scripts/setup.sh 15` and cargo put them.
 */
import { execFile, execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, chownSync, existsSync, mkdirSync, mkdtempSync, statSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { PATIENCE } from './patience.ts';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const runDir = process.env.SYNC_EXT_RUN_DIR ?? join(root, 'target', 'run');
const programs = process.env.SYNC_EXT_PG_BIN ?? join(runDir, 'pg15', 'bin');

/** The path of a socket has at most about 100 bytes. */
const longestFolder = 80;

export type Settings = Record<string, string | number | boolean>;

export interface ClusterOptions {
  /** Settings of the server, beside and before those of `defaults`. */
  settings?: Settings;
}

/** Where a cluster is, as plain data for another process. */
export interface Address {
  folder: string;
  port: number;
}

export interface Connection {
  host: string;
  port: number;
  user: string;
  database: string;
}

export interface GatewayOptions {
  /** The role it logs in as. */
  user?: string;
  /** Its settings, such as GATEWAY_JWT_SECRET. */
  env?: Record<string, string>;
}

/** Only the tests themselves change what they look at, and nothing has to survive. */
const defaults: Settings = {
  shared_preload_libraries: 'sync_ext',
  listen_addresses: '',
  fsync: 'off',
  full_page_writes: 'off',
  autovacuum: 'off',
  // How much GC does in a call must not depend on the time.
  'sync_ext.gc_lock_time': 0,
};

/** Of this process, in whatever clusters. */
let databases = 0;

export class Cluster {
  readonly address: Address;
  /** Undefined where another process runs it. */
  #server: Program | undefined;
  readonly #run: (() => Promise<Program>) | undefined;
  readonly #gateways = new Set<Gateway>();

  private constructor(address: Address, server?: Program, run?: () => Promise<Program>) {
    this.address = address;
    this.#server = server;
    this.#run = run;
  }

  /** One that another process runs, and stops. */
  static at(address: Address): Cluster {
    return new Cluster(address);
  }

  static async start(options: ClusterOptions = {}): Promise<Cluster> {
    if (!existsSync(join(programs, 'postgres'))) {
      throw new Error(`there is no Postgres in ${programs}: run scripts/setup.sh`);
    }
    const folder = newFolder();
    const data = join(folder, 'data');
    const identity = serverIdentity();
    const initdb = [
      '-D',
      data,
      '-U',
      'postgres',
      '-E',
      'UTF8',
      '--locale=C',
      '-A',
      'trust',
      '--no-sync',
    ];
    execFileSync(join(programs, 'initdb'), initdb, {
      ...identity,
      cwd: folder,
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    const port = await freePort();
    const settings = Object.entries({ ...defaults, ...options.settings });
    const run = async () => {
      const server = new Program(
        join(programs, 'postgres'),
        [
          '-D',
          data,
          '-k',
          folder,
          '-p',
          String(port),
          ...settings.flatMap(([name, value]) => ['-c', `${name}=${value}`]),
        ],
        { ...identity, cwd: folder, env: { ...serverEnvironment(), LC_ALL: 'C', TZ: 'UTC' } },
        { signal: 'QUIT', folder },
      );
      await server.prints('stderr', /database system is ready to accept connections/);
      return server;
    };
    return new Cluster({ folder, port }, await run(), run);
  }

  /** Ends the server at once, without a checkpoint: `restart` begins with recovery. */
  async kill(): Promise<void> {
    await this.#server?.end();
  }

  async restart(): Promise<void> {
    this.#server = await this.#run?.();
  }

  /** For drivers: how to log in to a database, by default as the superuser. */
  connection(database: string, user = 'postgres'): Connection {
    return { host: this.address.folder, port: this.address.port, user, database };
  }

  /** The same as libpq reads it. */
  connectionString(database: string, user = 'postgres'): string {
    const { folder, port } = this.address;
    return `host='${folder}' port=${port} user=${user} dbname=${database}`;
  }

  /** An empty database with the extension, under a name of its own. Runs `sql` in it. */
  async createDatabase(sql = ''): Promise<string> {
    const database = `test_${process.pid}_${++databases}`;
    await this.sql('postgres', `create database ${database}`);
    await this.sql(database, `create extension sync_ext;\n${sql}`);
    return database;
  }

  /**
   * Stops the gateways that were started here for it. Other connections are waited for, and not
   * ended: a driver would report that of a pool that is closing.
   */
  async dropDatabase(database: string): Promise<void> {
    await this.#stopGateways((gateway) => gateway.database === database);
    for (const end = performance.now() + PATIENCE; ;) {
      try {
        await this.sql('postgres', `drop database if exists ${database}`);
        return;
      } catch (error) {
        // Postgres itself has waited for five seconds.
        const isBusy = String(error).includes('is being accessed by other users');
        if (!isBusy || performance.now() > end) throw error;
      }
    }
  }

  /** Runs SQL by psql as the superuser. Returns the rows, without a header. */
  async sql(database: string, text: string): Promise<string> {
    const { host, port, user } = this.connection(database);
    const options = [
      '-X',
      '-q',
      '-A',
      '-t',
      '-v',
      'ON_ERROR_STOP=1',
      '-h',
      host,
      '-p',
      String(port),
      '-U',
      user,
    ];
    return new Promise((resolve, reject) => {
      const psql = execFile(
        join(programs, 'psql'),
        [...options, '-d', database, '-f', '-'],
        { maxBuffer: Infinity },
        (error, output, messages) => {
          if (error) reject(new Error(`psql failed: ${messages || error.message}`));
          else resolve(output.trimEnd());
        },
      );
      psql.stdin!.end(text);
    });
  }

  /** The gateway on a free port, for a database of this cluster. */
  async startGateway(database: string, options: GatewayOptions = {}): Promise<Gateway> {
    const env = {
      PATH: process.env.PATH,
      DATABASE_URL: this.connectionString(database, options.user),
      GATEWAY_ADDRESS: '127.0.0.1:0',
      ...options.env,
    };
    const program = new Program(
      gatewayProgram(),
      [],
      { cwd: this.address.folder, env },
      { signal: 'TERM' },
    );
    const [url] = await program.prints('stdout', /http:\/\/\S+/);
    const gateway = new Gateway(database, url, program, () => this.#gateways.delete(gateway));
    this.#gateways.add(gateway);
    return gateway;
  }

  /** What the server has logged. */
  log(): string {
    return this.#server?.output ?? '';
  }

  /** Stops the gateways that were started here, then the server, and removes its files. */
  async stop(): Promise<void> {
    await this.#stopGateways(() => true);
    if (this.#server === undefined) return;
    await this.#server.end();
    await rm(this.address.folder, { recursive: true, force: true });
  }

  async #stopGateways(isMeant: (gateway: Gateway) => boolean): Promise<void> {
    await Promise.all([...this.#gateways].filter(isMeant).map((gateway) => gateway.stop()));
  }
}

export class Gateway {
  readonly database: string;
  /** Where it serves, such as `http://127.0.0.1:41234`. */
  readonly url: string;
  readonly #program: Program;
  readonly #forget: () => void;

  constructor(database: string, url: string, program: Program, forget: () => void) {
    this.database = database;
    this.url = url;
    this.#program = program;
    this.#forget = forget;
  }

  /** What it has logged. */
  log(): string {
    return this.#program.output;
  }

  async stop(): Promise<void> {
    await this.#program.end();
    this.#forget();
  }
}

interface Identity {
  uid?: number;
  gid?: number;
}

interface Ending {
  signal: 'QUIT' | 'TERM';
  /** Removed when our process ends before the program. */
  folder?: string;
}

/**
 * A running program with a guard, which ends it if our process ends first: the guard reads
 * from a pipe whose other end only we hold. Both have process groups of their own, because
 * Ctrl-C is for us.
 */
class Program {
  output = '';
  readonly #name: string;
  readonly #process: ChildProcess;
  readonly #guard: ChildProcess;
  readonly #ending: Ending;
  readonly #exited: Promise<unknown>;

  constructor(
    name: string,
    args: string[],
    options: Identity & { cwd: string; env: NodeJS.ProcessEnv },
    ending: Ending,
  ) {
    this.#name = name;
    this.#ending = ending;
    this.#process = spawn(name, args, {
      ...options,
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#exited = new Promise((resolve) => {
      this.#process.once('exit', resolve);
      this.#process.once('error', resolve);
    });
    this.#guard = guard(this.#process.pid ?? 0, ending);
    for (const stream of [this.#process.stdout!, this.#process.stderr!]) {
      stream.setEncoding('utf8');
      stream.on('data', (text: string) => (this.output += text));
      letExit(stream);
    }
    this.#process.unref();
  }

  /** Waits for a text in what it prints; fails if it ends without. */
  async prints(stream: 'stdout' | 'stderr', pattern: RegExp): Promise<RegExpExecArray> {
    let printed = '';
    let onData = (_text: string) => {};
    const found = new Promise<RegExpExecArray>((resolve) => {
      onData = (text) => {
        printed += text;
        const match = pattern.exec(printed);
        if (match) resolve(match);
      };
      this.#process[stream]!.on('data', onData);
    });
    const ended = this.#exited.then(() => {
      throw new Error(`${this.#name} has ended: ${this.output}`);
    });
    // While we wait for it, it keeps us alive.
    this.#process.ref();
    try {
      return await Promise.race([found, ended]);
    } finally {
      ended.catch(() => {});
      this.#process[stream]!.off('data', onData);
      this.#process.unref();
    }
  }

  async end(): Promise<void> {
    this.#process.ref();
    this.#process.kill(`SIG${this.#ending.signal}`);
    await this.#exited;
    // Before its number can be that of another process.
    this.#guard.kill('SIGKILL');
  }
}

function guard(pid: number, { signal, folder }: Ending): ChildProcess {
  const wait = 'n=0; while kill -0 "$0" && [ "$n" -lt 100 ]; do sleep 0.1; n=$((n + 1)); done';
  const script = `read -r _; kill -${signal} "$0"; ${wait}; [ -z "$1" ] || rm -rf "$1"`;
  const process = spawn('sh', ['-c', script, String(pid), folder ?? ''], {
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  letExit(process.stdin!);
  process.unref();
  return process;
}

/** An open pipe alone keeps no process from ending. */
function letExit(stream: object): void {
  if ('unref' in stream && typeof stream.unref === 'function') stream.unref();
}

/** Postgres refuses to run as root; the user postgres runs it instead. */
function serverIdentity(): Identity {
  if (process.getuid?.() !== 0) return {};
  const id = (option: string) =>
    Number(execFileSync('id', [option, 'postgres'], { encoding: 'utf8' }));
  return { uid: id('-u'), gid: id('-g') };
}

/** If it is set, pgrx adds a backtrace to every error. */
function serverEnvironment(): NodeJS.ProcessEnv {
  const { RUST_BACKTRACE: _, ...rest } = process.env;
  return rest;
}

function newFolder(): string {
  mkdirSync(runDir, { recursive: true });
  const parent = runDir.length < longestFolder ? runDir : '/tmp';
  const folder = mkdtempSync(join(parent, 'node-'));
  chmodSync(folder, 0o700);
  const { uid, gid } = serverIdentity();
  if (uid !== undefined && gid !== undefined) chownSync(folder, uid, gid);
  return folder;
}

/** It only names the socket, unless listen_addresses is set. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

/** The newest that cargo has built. */
function gatewayProgram(): string {
  const given = process.env.SYNC_EXT_GATEWAY;
  if (given) return given;
  const built = ['debug', 'release']
    .map((profile) => join(root, 'target', profile, 'sync_ext_gateway'))
    .filter((path) => existsSync(path))
    .sort((a, b) => statSync(b).mtimeMs - statSync(a).mtimeMs);
  if (built[0] === undefined)
    throw new Error('there is no gateway: run cargo build --package sync_ext_gateway');
  return built[0];
}
