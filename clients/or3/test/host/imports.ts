/** In place of the app's and Nuxt's modules: what tests set, and what plugins asked for. */

export const host = {
  config: {} as Record<string, unknown>,
  token: null as string | null,
  asked: [] as unknown[],
};

export function useRuntimeConfig(): Record<string, unknown> {
  return host.config;
}

export function getDeviceId(): string {
  return 'laptop';
}

export function useAuthTokenBroker() {
  return {
    getProviderToken: async (request: unknown) => {
      host.asked.push(request);
      return host.token;
    },
  };
}
