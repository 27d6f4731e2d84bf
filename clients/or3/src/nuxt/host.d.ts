/** Modules of the app and of Nuxt, which the app's build resolves. */

declare module '#imports' {
  interface RuntimeConfig {
    auth?: { enabled?: boolean };
    sync?: { enabled?: boolean; provider?: string };
    public: {
      sync?: { enabled?: boolean; provider?: string };
      syncExt?: { directUrl?: string; tokenTemplate?: string };
    };
  }
  export function useRuntimeConfig(): RuntimeConfig;
}

declare module '~~/server/auth/store/registry' {
  export function registerAuthWorkspaceStore(item: {
    id: string;
    order?: number;
    create: () => import('../host.ts').AuthWorkspaceStore;
  }): void;
}

declare module '~~/server/sync/gateway/registry' {
  export function registerSyncGatewayAdapter(item: {
    id: string;
    order?: number;
    create: () => import('../host.ts').SyncGatewayAdapter;
  }): void;
}

declare module '~/core/sync/sync-provider-registry' {
  export function registerSyncProvider(provider: import('../host.ts').SyncProvider): void;
  export function setActiveSyncProvider(id: string): void;
}

declare module '~/core/sync/hlc' {
  export function getDeviceId(): string;
}

declare module '~/composables/auth/useAuthTokenBroker.client' {
  export function useAuthTokenBroker(): {
    getProviderToken(request: { providerId: string; template?: string }): Promise<string | null>;
  };
}
