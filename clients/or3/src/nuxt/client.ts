/** The client plugin: registers the SyncProvider while the app uses this provider. */
import { useRuntimeConfig } from '#imports';
import { useAuthTokenBroker } from '~/composables/auth/useAuthTokenBroker.client';
import { getDeviceId } from '~/core/sync/hlc';
import { registerSyncProvider, setActiveSyncProvider } from '~/core/sync/sync-provider-registry';
import type { SyncProvider } from '../host.ts';
import { createDirectSyncProvider } from '../client/direct.ts';
import { createGatewaySyncProvider } from '../client/gateway.ts';

const id = 'sync-ext';

export default function plugin(): void {
  const { sync, syncExt } = useRuntimeConfig().public;
  if (!sync?.enabled || sync.provider !== id) return;
  const url = syncExt?.directUrl;
  registerSyncProvider(url ? direct(url, syncExt.tokenTemplate) : gateway());
  setActiveSyncProvider(id);
}

const reports = {
  onError: (error: unknown) => console.warn('[sync-ext] cannot follow the workspace:', error),
  // The app takes a snapshot when it starts.
  onSnapshotRequired: () => console.warn('[sync-ext] the server has lost history: reload'),
};

function gateway(): SyncProvider {
  return createGatewaySyncProvider({ ...reports, id, deviceId: getDeviceId });
}

/** With a token of the app's broker if the settings name one, otherwise with cookies. */
function direct(url: string, template: string | undefined): SyncProvider {
  const common = { ...reports, id, url, deviceId: getDeviceId };
  if (!template) return createDirectSyncProvider({ ...common, credentials: 'include' });
  const broker = useAuthTokenBroker();
  const auth = { providerId: id, template };
  const headers = async (): Promise<HeadersInit> => {
    const token = await broker.getProviderToken(auth);
    return token ? { authorization: `Bearer ${token}` } : {};
  };
  return createDirectSyncProvider({ ...common, auth, headers });
}
