import { createContext, useContext, useEffect, useState } from 'react';
import { get, type LiveEvent, type Revisions } from './api';

export type Link = 'connecting' | 'live' | 'lost';
export interface Live { event: LiveEvent | null; link: Link; now: number }

export const LiveContext = createContext<Live>({ event: null, link: 'connecting', now: Date.now() });
export const useLive = () => useContext(LiveContext);

const retryAfter = 2000;

/** useEvents keeps the stream of events open while the page can be seen: nothing is read of the mesh for a page that is not. */
export function useEvents(seconds: number): Live {
  const [live, setLive] = useState<Live>({ event: null, link: 'connecting', now: Date.now() });
  useEffect(() => {
    let source: EventSource | null = null;
    let timer = 0;
    const open = () => {
      clearTimeout(timer);
      source?.close();
      source = new EventSource(`/api/v1/events?window=${seconds}`);
      source.onmessage = (m: MessageEvent<string>) => setLive({ event: JSON.parse(m.data) as LiveEvent, link: 'live', now: Date.now() });
      source.onerror = () => {
        setLive((l) => ({ ...l, link: 'lost' }));
        source?.close();
        timer = window.setTimeout(open, retryAfter);
      };
    };
    const seen = () => {
      if (document.hidden) {
        clearTimeout(timer);
        source?.close();
        source = null;
      } else if (!source) {
        open();
      }
    };
    seen();
    document.addEventListener('visibilitychange', seen);
    return () => {
      document.removeEventListener('visibilitychange', seen);
      clearTimeout(timer);
      source?.close();
    };
  }, [seconds]);
  return live;
}

/** useEndpoint reads an endpoint, and again when its revision goes up. */
export function useEndpoint<T>(path: string | null, revision: keyof Revisions): { data: T | null; error: string } {
  const { event } = useLive();
  const number = event?.revisions[revision] ?? -1;
  const [state, setState] = useState<{ path: string | null; data: T | null; error: string }>({ path: null, data: null, error: '' });
  useEffect(() => {
    if (path == null) return;
    const stop = new AbortController();
    get<T>(path, stop.signal).then(
      (data) => setState({ path, data, error: '' }),
      (err: Error) => {
        if (!stop.signal.aborted) setState((s) => ({ path, data: s.path === path ? s.data : null, error: err.message }));
      },
    );
    return () => stop.abort();
  }, [path, number]);
  if (state.path !== path) return { data: null, error: '' };
  return state;
}
