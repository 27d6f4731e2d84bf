/** One cluster for all tests, in which each file has databases of its own. */
import type { TestProject } from 'vitest/node';
import { Cluster, type Address } from '../../../support/cluster.ts';

declare module 'vitest' {
  export interface ProvidedContext {
    cluster: Address;
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const cluster = await Cluster.start();
  // The store's login is trusted; sync_ext demands a user of the adapter's and the gateway's.
  await cluster.sql(
    'postgres',
    `create role or3_app login;
     create role or3_sync login;
     alter role or3_sync set sync_ext.require_user = on;`,
  );
  project.provide('cluster', cluster.address);
  return () => cluster.stop();
}
