/** In place of the app's registries: what was registered. */
import type { AuthWorkspaceStore, SyncGatewayAdapter, SyncProvider } from '../../src/host.ts';

export const registered = {
  stores: new Map<string, AuthWorkspaceStore>(),
  adapters: new Map<string, SyncGatewayAdapter>(),
  providers: new Map<string, SyncProvider>(),
  active: undefined as string | undefined,
};

export function forget(): void {
  registered.stores.clear();
  registered.adapters.clear();
  registered.providers.clear();
  registered.active = undefined;
}

export function registerAuthWorkspaceStore(item: {
  id: string;
  create: () => AuthWorkspaceStore;
}): void {
  registered.stores.set(item.id, item.create());
}

export function registerSyncGatewayAdapter(item: {
  id: string;
  create: () => SyncGatewayAdapter;
}): void {
  registered.adapters.set(item.id, item.create());
}

export function registerSyncProvider(provider: SyncProvider): void {
  registered.providers.set(provider.id, provider);
}

export function setActiveSyncProvider(id: string): void {
  registered.active = id;
}
