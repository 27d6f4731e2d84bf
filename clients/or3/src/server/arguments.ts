/** The checks of arguments that the adapter needs before sync_ext has its own. */
import { ProviderError } from '../error.ts';

export function invalid(detail: string): never {
  throw new ProviderError('invalid_request', { detail });
}

export function workspaceOf(scope: { workspaceId: string } | undefined): string {
  const workspaceId = scope?.workspaceId;
  if (typeof workspaceId !== 'string' || workspaceId.trim() === '') {
    invalid('The workspaceId must not be empty.');
  }
  return workspaceId;
}

export function version(given: number, name: string): number {
  if (!Number.isSafeInteger(given) || given < 0) {
    invalid(`The ${name} must be an integer from 0 to 2^53 - 1.`);
  }
  return given;
}

export function deviceId(given: string): string {
  if (typeof given !== 'string' || given === '') invalid('The deviceId must not be empty.');
  return given;
}

/** An hour, as sync_ext requires, to a year. */
const retentions = { least: 60 * 60, most: 365 * 24 * 60 * 60 };

/** Fractions are allowed. */
export function retention(seconds: number): number {
  if (typeof seconds !== 'number' || !(seconds >= retentions.least && seconds <= retentions.most)) {
    invalid(`The retention must be ${retentions.least} to ${retentions.most} seconds.`);
  }
  return seconds;
}

/** NULL means all tables. */
export function tablesOf(tables: string[] | undefined): string[] | null {
  return tables && tables.length > 0 ? tables : null;
}
