import type * as React from 'react';
import { useCallback, useSyncExternalStore } from 'react';
import type { SyncStatusElement } from './element.ts';
import type { Observable } from './observable.ts';
import type { OpenConflict, Status, Sync } from './sync.ts';

/** How a sync is doing; the component is rendered again when that changes. */
export function useSyncStatus(sync: Sync): Status {
  return useObservable(sync.status);
}

/** The conflicts that nobody has resolved, in this tab or another one. */
export function useConflicts(sync: Sync): OpenConflict[] {
  return useObservable(sync.openConflicts);
}

function useObservable<T>(observable: Observable<T>): T {
  const subscribe = useCallback((listener: () => void) => observable.subscribe(listener), [observable]);
  const value = () => observable.value;
  return useSyncExternalStore(subscribe, value, value);
}

declare module 'react' {
  namespace JSX {
    interface IntrinsicElements {
      'sync-status': React.DetailedHTMLProps<React.HTMLAttributes<SyncStatusElement>, SyncStatusElement> & { sync: Sync };
    }
  }
}
