import Dexie from 'dexie';

/** As Dexie's promise, which keeps a transaction open. */
export function all<T extends readonly unknown[]>(promises: readonly [...T]): Promise<{ -readonly [I in keyof T]: Awaited<T[I]> }> {
  return Dexie.Promise.all([...promises]) as unknown as Promise<{ -readonly [I in keyof T]: Awaited<T[I]> }>;
}

export function done<T>(request: IDBRequest<T>): Promise<T> {
  return new Dexie.Promise<T>((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** When the last request of a transaction is done, so are those before it. */
export async function results<T>(requests: readonly IDBRequest<T>[]): Promise<T[]> {
  if (requests.length > 0) await done(requests.at(-1)!);
  return requests.map(({ result }) => result);
}
