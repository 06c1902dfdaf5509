import { useEffect, useMemo, useState } from 'react';
import { href, parseRoute, useHash } from './route';
import { LiveContext, useEvents, type Live } from './live';
import { Icon, type IconName } from './ui/icons';
import { Notice } from './ui/bits';
import { Overview } from './pages/overview';
import { GraphPage } from './pages/graph';
import { Proxies } from './pages/proxies';
import { Config } from './pages/config';
import { Pods } from './pages/pods';

const pages: { id: IconName & string; title: string }[] = [
  { id: 'overview', title: 'Overview' },
  { id: 'graph', title: 'Graph' },
  { id: 'proxies', title: 'Proxies' },
  { id: 'config', title: 'Config' },
  { id: 'pods', title: 'Pods' },
];

const windows: [number, string][] = [[10, '10 s'], [60, '1 min'], [300, '5 min']];

function stored(key: string, fallback: string): string {
  try {
    return localStorage.getItem(key) ?? fallback;
  } catch {
    return fallback; // storage is off
  }
}

function store(key: string, value: string) {
  try {
    localStorage.setItem(key, value);
  } catch {
    // storage is off: it lasts until the page is closed
  }
}

type Theme = 'auto' | 'light' | 'dark';

function useTheme(): [Theme, () => void] {
  const [theme, setTheme] = useState<Theme>(() => stored('weft-theme', 'auto') as Theme);
  useEffect(() => {
    store('weft-theme', theme);
    if (theme === 'auto') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
  }, [theme]);
  return [theme, () => setTheme((t) => (t === 'auto' ? 'light' : t === 'light' ? 'dark' : 'auto'))];
}

/** useKeys goes to a page by its number. */
function useKeys() {
  useEffect(() => {
    const down = (e: KeyboardEvent) => {
      const t = e.target as HTMLElement;
      if (e.ctrlKey || e.metaKey || e.altKey || t.closest('input, select, textarea')) return;
      const page = pages[Number(e.key) - 1];
      if (page) location.hash = href(page.id);
    };
    document.addEventListener('keydown', down);
    return () => document.removeEventListener('keydown', down);
  }, []);
}

export function App() {
  const hash = useHash();
  const route = useMemo(() => parseRoute(hash), [hash]);
  const [seconds, setSeconds] = useState(() => {
    const n = Number(stored('weft-window', '60'));
    return windows.some(([w]) => w === n) ? n : 60;
  });
  const [theme, nextTheme] = useTheme();
  const live = useEvents(seconds);
  useKeys();
  const title = pages.find((p) => p.id === route.page)?.title ?? 'Not found';
  useEffect(() => {
    document.title = `${title} · Weft`;
  }, [title]);
  return (
    <LiveContext value={live}>
      <a className="skip" href="#main" onClick={(e) => { e.preventDefault(); document.getElementById('main')?.focus(); }}>Skip to the page</a>
      <div className="shell">
        <nav className="side" aria-label="Pages">
          <a className="brand" href={href('overview')} aria-label="Weft"><img src="/favicon.svg" alt="" width="26" height="26" /><span>Weft</span></a>
          {pages.map((p) => (
            <a key={p.id} href={href(p.id)} className="item" aria-current={p.id === route.page ? 'page' : undefined}>
              <Icon name={p.id} />
              <span>{p.title}</span>
              <Badge page={p.id} live={live} />
            </a>
          ))}
          <div className="foot"><Foot live={live} /></div>
        </nav>
        <div className="body">
          <header className="top">
            <h1>{title}</h1>
            <Status live={live} />
            <div className="segments" role="group" aria-label="Window that rates are worked out over">
              {windows.map(([w, label]) => (
                <button key={w} type="button" aria-pressed={w === seconds} onClick={() => { setSeconds(w); store('weft-window', String(w)); }}>{label}</button>
              ))}
            </div>
            <button type="button" className="ghost" onClick={nextTheme} aria-label={`Theme: ${theme}`} title={`Theme: ${theme}`}>
              <Icon name={theme === 'auto' ? 'auto' : theme === 'light' ? 'sun' : 'moon'} />
            </button>
          </header>
          <main id="main" tabIndex={-1}>
            <Notices live={live} />
            <Page page={route.page} query={route.query} />
          </main>
        </div>
      </div>
    </LiveContext>
  );
}

function Page({ page, query }: { page: string; query: URLSearchParams }) {
  switch (page) {
    case 'overview': return <Overview />;
    case 'graph': return <GraphPage query={query} />;
    case 'proxies': return <Proxies />;
    case 'config': return <Config query={query} />;
    case 'pods': return <Pods />;
    default: return <Notice tone="warn">There is no page “{page}”. <a href={href('overview')}>Go to the overview</a></Notice>;
  }
}

/** Badge is a number beside a page's name that says there is something to see to. */
function Badge({ page, live }: { page: string; live: Live }) {
  const o = live.event?.overview;
  if (!o) return null;
  const n = page === 'proxies' ? o.refused : page === 'config' ? o.problems : page === 'pods' ? o.pods.total - o.pods.ready : 0;
  return n > 0 ? <span className={`badge ${page === 'pods' ? 'warn' : 'bad'}`}>{n}</span> : null;
}

function Status({ live }: { live: Live }) {
  const text = live.link === 'live' ? 'Live' : live.link === 'connecting' ? 'Connecting' : 'Reconnecting';
  return <span className={`status ${live.link}`} role="status"><i aria-hidden="true" />{text}</span>;
}

function Foot({ live }: { live: Live }) {
  const c = live.event?.overview.control;
  if (!c?.version) return null;
  return <>Control plane {c.version}<br />{c.objects} objects, {c.services} services</>;
}

function Notices({ live }: { live: Live }) {
  const o = live.event?.overview;
  return (
    <>
      {live.link === 'lost' && <Notice tone="bad">The console does not answer: the mesh may have ended. What is shown is old; it goes on by itself when the mesh is back.</Notice>}
      {o?.error && <Notice tone="bad">Pods could not be read: {o.error}</Notice>}
      {o?.control.error && <Notice tone="warn">The control plane does not answer ({o.control.error}). Proxies serve on with the last good configuration.</Notice>}
      {o?.truncated && <Notice tone="warn">There is more traffic than the console keeps apart; some of it is not shown.</Notice>}
    </>
  );
}
