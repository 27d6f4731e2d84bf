/** The browser's part: SyncProviders for the app's client. */
export * from './host.ts';
export { createDirectSyncProvider, type DirectProviderOptions } from './client/direct.ts';
export { createGatewaySyncProvider, type GatewayProviderOptions } from './client/gateway.ts';
export { RequestError } from './client/request.ts';
