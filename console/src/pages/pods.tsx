import { useState } from 'react';
import type { Pod, PodList } from '../api';
import { age, bytes, plural } from '../format';
import { useEndpoint, useLive } from '../live';
import { Empty, Filter, matches, Name, Notice, useSort } from '../ui/bits';

const memory = (p: Pod) => (p.containers ?? []).reduce((sum, c) => sum + (c.rssBytes ?? 0), 0);

const columns: Record<string, (p: Pod) => string | number> = {
  name: (p) => `${p.namespace}/${p.name}`,
  status: (p) => p.phase,
  restarts: (p) => p.restarts,
  age: (p) => -Date.parse(p.started),
  memory,
  ip: (p) => p.ip.split('.').map((n) => n.padStart(3, '0')).join('.'),
};

export function Pods() {
  const { data, error } = useEndpoint<PodList>('pods', 'pods');
  const [filter, setFilter] = useState('');
  const { sort, header } = useSort('name', columns);
  const { now } = useLive();
  if (!data) return error ? <Notice tone="bad">{error}</Notice> : <div className="loading" aria-busy="true">Reading…</div>;
  const rows = sort(data.items.filter((p) => matches(filter, p.namespace, p.name, p.phase, p.ip, p.serviceAccount)));
  return (
    <section className="panel">
      <div className="head">
        <h2>{plural(rows.length, 'pod')}</h2>
        <span className="dim">{bytes(rows.reduce((s, p) => s + memory(p), 0))} of memory</span>
        <Filter value={filter} onChange={setFilter} what="pods" />
      </div>
      {rows.length === 0 ? <Empty title={filter ? 'No pod matches' : 'No pod runs'} /> : (
        <table className="cards">
          <thead>
            <tr>
              {header('name', 'Pod')}
              {header('status', 'Status')}
              <th scope="col">Containers</th>
              {header('restarts', 'Restarts', 'num')}
              {header('age', 'Age', 'num')}
              {header('ip', 'IP')}
              <th scope="col">Service account</th>
              {header('memory', 'Memory', 'num')}
            </tr>
          </thead>
          <tbody>
            {rows.map((p) => {
              const key = p.namespace + '/' + p.name;
              return <Row key={key} p={p} now={now} scrape={data.scrapeErrors?.[key]} />;
            })}
          </tbody>
        </table>
      )}
    </section>
  );
}

function Row({ p, now, scrape }: { p: Pod; now: number; scrape: string | undefined }) {
  const kind = p.ready ? 'good' : p.phase === 'Failed' ? 'bad' : 'warn';
  return (
    <tr>
      <th scope="row"><Name name={p.name} namespace={p.namespace} /></th>
      <td data-label="Status"><span className={`chip ${kind}`}>{p.ready ? 'Ready' : p.phase === 'Running' ? 'Not ready' : p.phase}</span>{p.message && <span className="sub">{p.message}</span>}{scrape && <span className="sub warn" title={scrape}>no metrics</span>}</td>
      <td data-label="Containers" className="containers">
        {(p.containers ?? []).map((c) => <span key={c.name} className={`chip ${c.ready ? 'none' : 'warn'}`} title={`${c.state}${c.pid ? `, process ${c.pid}` : ''}${c.rssBytes ? `, ${bytes(c.rssBytes)}` : ''}`}>{c.name}</span>)}
      </td>
      <td data-label="Restarts" className={`num ${p.restarts ? 'warn' : ''}`}>{p.restarts}</td>
      <td data-label="Age" className="num">{age(p.started, now)}</td>
      <td data-label="IP">{p.ip}</td>
      <td data-label="Service account" className="break">{p.serviceAccount || <span className="dim">–</span>}</td>
      <td data-label="Memory" className="num">{bytes(memory(p))}</td>
    </tr>
  );
}
