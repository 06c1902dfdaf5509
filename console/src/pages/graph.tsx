import { useCallback, useEffect, useMemo, useRef, useState } from 'react';
import type { Graph, GraphEdge, GraphNode, Traffic } from '../api';
import { bytes, millis, percent, plural, rate, tone } from '../format';
import { edgePath, labelPoints, layout, type LayoutOptions, type Point } from '../layout';
import { useLive } from '../live';
import { href } from '../route';
import { Empty } from '../ui/bits';
import { Icon, Lock } from '../ui/icons';
import { useView } from '../ui/panzoom';

const wide: LayoutOptions = { width: 182, height: 50, layerGap: 106, gap: 22, groupPad: 10, groupHead: 20, down: false };
const narrow: LayoutOptions = { width: 112, height: 50, layerGap: 64, gap: 10, groupPad: 7, groupHead: 18, down: true };

const groupOf = (n: GraphNode) => (n.kind === 'workload' && n.app ? `${n.namespace}/${n.app}` : n.id);

function useWidth(): [React.RefObject<HTMLDivElement | null>, number] {
  const ref = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(0);
  useEffect(() => {
    const el = ref.current;
    if (!el) return;
    const watch = new ResizeObserver(([e]) => setWidth(e!.contentRect.width));
    watch.observe(el);
    return () => watch.disconnect();
  }, []);
  return [ref, width];
}

export function GraphPage({ query }: { query: URLSearchParams }) {
  const { event } = useLive();
  const graph = event?.graph;
  const focus = query.get('focus') ?? '';
  const [chosen, setChosen] = useState('');
  const [ref, width] = useWidth();
  const choose = useCallback(
    (id: string) => {
      setChosen(id);
      if (focus) location.hash = href('graph');
    },
    [focus],
  );
  useEffect(() => {
    const down = (e: KeyboardEvent) => e.key === 'Escape' && choose('');
    document.addEventListener('keydown', down);
    return () => document.removeEventListener('keydown', down);
  }, [choose]);
  // A service that was asked for by its address is shown as if it were chosen.
  const lit = chosen || (focus ? `service ${focus}` : '');
  const node = graph?.nodes.find((n) => n.id === chosen);
  const edge = graph?.edges.find((e) => e.id === chosen);
  return (
    <div className="graphpage">
      <div className="canvas panel" ref={ref}>
        {!graph ? <div className="loading" aria-busy="true">Looking at the mesh…</div>
          : graph.nodes.length === 0 ? <Empty title="No traffic yet">Calls between services appear here as they happen. Open the ingress in a browser.</Empty>
          : width > 0 && <Drawing graph={graph} o={width < 640 ? narrow : wide} lit={lit} choose={choose} />}
      </div>
      {graph && (node || edge) && (
        <aside className="panel detail" aria-label="What is chosen">
          {node ? <NodeDetail n={node} g={graph} choose={choose} /> : edge && <EdgeDetail e={edge} g={graph} choose={choose} />}
        </aside>
      )}
      {graph && graph.nodes.length > 0 && <Legend />}
    </div>
  );
}

/** lights makes a test of whether a node or edge belongs to what is chosen. */
function lights(g: Graph, lit: string): (id: string) => boolean {
  if (!lit) return () => true;
  const on = new Set<string>([lit]);
  const service = lit.startsWith('service ') ? lit.slice(8) : null;
  for (const e of g.edges) {
    if (e.source === lit || e.target === lit || e.id === lit || e.service === service) for (const id of [e.id, e.source, e.target]) on.add(id);
  }
  if (service && on.size === 1) return () => true; // it has no traffic: nothing to point at
  return (id) => on.has(id);
}

function Drawing({ graph, o, lit, choose }: { graph: Graph; o: LayoutOptions; lit: string; choose: (id: string) => void }) {
  // The drawing is worked out anew when who calls whom changes, not when numbers do.
  const shape = JSON.stringify([graph.nodes.map((n) => n.id), graph.edges.map((e) => e.id), o.down]);
  const [l, labels] = useMemo(
    () => {
      const drawn = layout(graph.nodes.map((n) => ({ id: n.id, group: groupOf(n), label: n.version ?? n.name })), graph.edges, o);
      return [drawn, labelPoints(drawn, o, { width: 72, height: 21 })];
    },
    [shape], // graph and o are read through it
  );
  const { svg, transform, zoom, fit, handlers } = useView(l.width, l.height, shape);
  const on = lights(graph, lit);
  const nodes = new Map(graph.nodes.map((n) => [n.id, n]));
  return (
    <>
      <svg ref={svg} className="graph" role="group" aria-label="Traffic graph" {...handlers} onClick={(e) => e.target === e.currentTarget && choose('')}>
        <defs>
          {(['good', 'warn', 'bad', 'idle'] as const).map((k) => (
            <marker key={k} id={`arrow-${k}`} className={`arrow ${k}`} viewBox="0 0 8 8" refX="6" refY="4" markerWidth="9" markerHeight="9" markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0.500L7 4L0 7.500z" /></marker>
          ))}
        </defs>
        <g transform={transform}>
          {l.groups.map(({ group, box }) => (
            <g key={group} className="group">
              <rect x={box.x} y={box.y} width={box.width} height={box.height} rx="12" />
              <text x={box.x + 12} y={box.y + 16}>{group.split('/')[1]}</text>
            </g>
          ))}
          {graph.edges.map((e) => {
            const points = l.edges.get(e.id);
            return points && <Edge key={e.id} e={e} d={edgePath(points, o, 4)} names={[nodes.get(e.source)!, nodes.get(e.target)!]} off={!on(e.id)} chosen={lit === e.id} choose={choose} />;
          })}
          {graph.nodes.map((n) => {
            const p = l.nodes.get(n.id);
            return p && <Node key={n.id} n={n} x={p.x} y={p.y} o={o} grouped={l.groups.some((g) => g.group === groupOf(n))} off={!on(n.id)} chosen={lit === n.id} choose={choose} loop={graph.edges.find((e) => e.source === n.id && e.target === n.id)} />;
          })}
          {graph.edges.map((e) => {
            const at = labels.get(e.id);
            return at && <EdgeLabel key={e.id} e={e} at={at} off={!on(e.id)} choose={choose} />;
          })}
        </g>
      </svg>
      <div className="tools" role="group" aria-label="Zoom">
        <button type="button" onClick={() => zoom(1.25)} aria-label="Closer"><Icon name="plus" /></button>
        <button type="button" onClick={() => zoom(0.8)} aria-label="Farther"><Icon name="minus" /></button>
        <button type="button" onClick={fit} aria-label="Show all"><Icon name="fit" /></button>
      </div>
    </>
  );
}

const press = (f: () => void) => (e: React.KeyboardEvent) => {
  if (e.key === 'Enter' || e.key === ' ') {
    e.preventDefault();
    f();
  }
};

export const titleOf = (n: GraphNode) => (n.kind === 'outside' ? 'Callers without a proxy' : n.kind === 'workload' && n.app ? n.app : n.name);

function subOf(n: GraphNode): string {
  switch (n.kind) {
    case 'outside': return 'plain text';
    case 'external': return 'outside the mesh';
    case 'service': return 'no answer';
    case 'gateway': return 'gateway';
    case 'workload': return n.version && n.version !== 'latest' ? n.version : n.name;
  }
}

function Node({ n, x, y, o, grouped, off, chosen, choose, loop }: { n: GraphNode; x: number; y: number; o: LayoutOptions; grouped: boolean; off: boolean; chosen: boolean; choose: (id: string) => void; loop: GraphEdge | undefined }) {
  const k = n.kind === 'service' ? 'bad' : tone(n.traffic);
  const title = grouped ? subOf(n) : n.kind === 'outside' ? 'no proxy' : titleOf(n);
  const sub = grouped ? (o.down ? '' : n.name) : n.kind === 'outside' ? 'callers outside' : subOf(n);
  const traffic = n.traffic.rate > 0 ? `${rate(n.traffic.rate)}/s` : '';
  const room = Math.floor((o.width - 30) / 7.4);
  return (
    <g className={`node ${n.kind} ${k} ${off ? 'off' : ''} ${chosen ? 'chosen' : ''}`} transform={`translate(${x - o.width / 2} ${y - o.height / 2})`} role="button" tabIndex={0} aria-pressed={chosen} aria-label={`${titleOf(n)} ${subOf(n)}, ${traffic || 'no calls'}`} onClick={() => choose(chosen ? '' : n.id)} onKeyDown={press(() => choose(chosen ? '' : n.id))}>
      {loop && <path className={`loop ${tone(loop.traffic)}`} d={`M${o.width / 2 - 14} 0c-6 -22 34 -22 28 -2`} markerEnd={`url(#arrow-${tone(loop.traffic)})`} />}
      <rect className="box" width={o.width} height={o.height} rx="10" />
      <rect className="mark" x="0" y="10" width="4" height={o.height - 20} rx="2" />
      <text className="title" x="14" y="21">{clip(title, room)}</text>
      <text className="sub" x="14" y="38">{clip(sub, traffic ? room - 4 : room + 3)}</text>
      {traffic && <text className="sub num" x={o.width - 10} y="38" textAnchor="end">{traffic}</text>}
    </g>
  );
}

const clip = (s: string, n: number) => (s.length > n ? s.slice(0, n - 1) + '…' : s);

function Edge({ e, d, names, off, chosen, choose }: { e: GraphEdge; d: string; names: GraphNode[]; off: boolean; chosen: boolean; choose: (id: string) => void }) {
  const t = e.traffic;
  const moving = t.rate > 0 || (t.tcp?.sent ?? 0) + (t.tcp?.received ?? 0) > 0;
  const k = moving && t.success == null ? 'good' : tone(t);
  const width = 1.5 + Math.min(3, Math.log10(1 + t.rate) * 1.3);
  const seconds = Math.max(0.5, 2.4 / Math.log2(2 + t.rate));
  const label = `${titleOf(names[0]!)} calls ${titleOf(names[1]!)} ${names[1]!.version ?? ''}: ${numbers(t)}`;
  return (
    <g className={`edge ${k} ${off ? 'off' : ''} ${chosen ? 'chosen' : ''}`} role="button" tabIndex={0} aria-pressed={chosen} aria-label={label} onClick={() => choose(chosen ? '' : e.id)} onKeyDown={press(() => choose(chosen ? '' : e.id))}>
      <path className="hit" d={d} />
      <path className="line" d={d} style={{ strokeWidth: width }} markerEnd={`url(#arrow-${k})`} />
      {moving && <path className="flow" d={d} style={{ strokeWidth: width + 1.5, animationDuration: `${seconds.toFixed(1)}s` }} />}
    </g>
  );
}

function numbers(t: Traffic): string {
  if (t.tcp) return `${bytes(t.tcp.sent + t.tcp.received)}/s, ${plural(t.tcp.open, 'connection')}`;
  return `${rate(t.rate)} requests per second, ${percent(t.success)} success`;
}

function EdgeLabel({ e, at, off, choose }: { e: GraphEdge; at: Point; off: boolean; choose: (id: string) => void }) {
  const t = e.traffic;
  if (t.rate === 0 && !t.tcp) return null;
  const text = t.tcp ? `${bytes(t.tcp.sent + t.tcp.received)}/s` : `${rate(t.rate)}/s`;
  const failed = t.success != null && t.success < 0.9995 ? percent(t.success) : t.refused && t.refused > 0.005 ? `${percent(t.refused)} 4xx` : '';
  const full = failed ? `${text} · ${failed}` : text;
  const lock = t.mtls != null;
  const w = full.length * 6.3 + (lock ? 28 : 14);
  return (
    <g className={`label ${tone(t)} ${off ? 'off' : ''}`} transform={`translate(${at.x - w / 2} ${at.y - 10})`} onClick={() => choose(e.id)} aria-hidden="true">
      <rect width={w} height="20" rx="10" />
      {lock && <g className={t.mtls! >= 1 ? 'good' : 'warn'} transform="translate(6 3.5) scale(0.8)"><path d={t.mtls! >= 1 ? 'M4 7h8v6.500H4zM5.5 7V5a2.5 2.5 0 0 1 5 0v2' : 'M4 7h8v6.500H4zM5.5 7V4.500a2.5 2.5 0 0 1 4.9-.7'} /></g>}
      <text x={lock ? 21 : 7} y="14">{full}</text>
    </g>
  );
}

function Numbers({ t }: { t: Traffic }) {
  return (
    <dl className="numbers">
      <div><dt>Requests/s</dt><dd>{rate(t.rate)}</dd></div>
      <div><dt>Success</dt><dd className={tone(t)}>{percent(t.success)}</dd></div>
      {!!t.refused && <div><dt>Answered 4xx</dt><dd className="warn">{percent(t.refused)}</dd></div>}
      <div><dt>p50</dt><dd>{millis(t.p50)}</dd></div>
      <div><dt>p99</dt><dd>{millis(t.p99)}</dd></div>
      <div><dt>mTLS</dt><dd><Lock share={t.mtls} /></dd></div>
      {t.tcp && <><div><dt>Connections</dt><dd>{t.tcp.open}</dd></div><div><dt>To callers</dt><dd>{bytes(t.tcp.sent)}/s</dd></div><div><dt>From callers</dt><dd>{bytes(t.tcp.received)}/s</dd></div></>}
    </dl>
  );
}

function Title({ title, sub, close }: { title: string; sub: string; close: () => void }) {
  return (
    <div className="head">
      <h2>{title}<span className="sub">{sub}</span></h2>
      <button type="button" className="ghost" onClick={close} aria-label="Close"><Icon name="close" /></button>
    </div>
  );
}

function NodeDetail({ n, g, choose }: { n: GraphNode; g: Graph; choose: (id: string) => void }) {
  const into = g.edges.filter((e) => e.target === n.id);
  const out = g.edges.filter((e) => e.source === n.id);
  return (
    <>
      <Title title={titleOf(n)} sub={[n.kind === 'workload' ? n.name : subOf(n), n.namespace].filter(Boolean).join(' · ')} close={() => choose('')} />
      {into.length > 0 ? <Numbers t={n.traffic} /> : <p className="hintline">Nobody in the mesh calls it.</p>}
      {n.pods.total > 0 && <p className="hintline">{n.pods.ready} of {plural(n.pods.total, 'pod')} ready</p>}
      <Calls title="Called by" edges={into} g={g} end="source" choose={choose} />
      <Calls title="Calls" edges={out} g={g} end="target" choose={choose} />
    </>
  );
}

function Calls({ title, edges, g, end, choose }: { title: string; edges: GraphEdge[]; g: Graph; end: 'source' | 'target'; choose: (id: string) => void }) {
  if (!edges.length) return null;
  return (
    <>
      <h3>{title}</h3>
      <ul className="calls">
        {edges.map((e) => {
          const n = g.nodes.find((x) => x.id === e[end])!;
          return (
            <li key={e.id}>
              <button type="button" onClick={() => choose(e.id)}>
                <span>{titleOf(n)} <span className="dim">{n.kind === 'workload' ? n.version : ''}</span></span>
                <span className="num">{e.traffic.tcp ? `${bytes(e.traffic.tcp.sent + e.traffic.tcp.received)}/s` : `${rate(e.traffic.rate)}/s`}</span>
                <span className={`num ${tone(e.traffic)}`}>{percent(e.traffic.success)}</span>
              </button>
            </li>
          );
        })}
      </ul>
    </>
  );
}

function EdgeDetail({ e, g, choose }: { e: GraphEdge; g: Graph; choose: (id: string) => void }) {
  const from = g.nodes.find((n) => n.id === e.source)!;
  const to = g.nodes.find((n) => n.id === e.target)!;
  return (
    <>
      <Title title={`${titleOf(from)} → ${titleOf(to)}`} sub={`${e.protocol} to ${e.service}${to.kind === 'workload' && to.version ? ` ${to.version}` : ''}`} close={() => choose('')} />
      <Numbers t={e.traffic} />
      <ul className="calls">
        {[from, to].map((n) => <li key={n.id}><button type="button" onClick={() => choose(n.id)}><span>{titleOf(n)} <span className="dim">{subOf(n)}</span></span></button></li>)}
      </ul>
    </>
  );
}

function Legend() {
  return (
    <p className="legendline">
      <span><i className="good" />all succeed</span><span><i className="warn" />some fail, or 4xx</span><span><i className="bad" />over 5 % fail</span><span><i className="idle" />silent now</span>
      <span className="lock good"><Icon name="lock" />mTLS</span><span className="lock warn"><Icon name="unlock" />plain text</span>
    </p>
  );
}
