import { Fragment, useState } from 'react';
import type { Proxy, ProxyList, TypeStatus } from '../api';
import { age, plural, shortIdentity } from '../format';
import { useEndpoint, useLive } from '../live';
import { Empty, Filter, matches, Name, Notice, useSort } from '../ui/bits';

const types = ['LDS', 'RDS', 'CDS', 'EDS', 'SDS'];
const typeNames: Record<string, string> = { LDS: 'listeners', RDS: 'routes', CDS: 'clusters', EDS: 'endpoints', SDS: 'secrets' };

const columns: Record<string, (p: Proxy) => string | number> = {
  name: (p) => `${p.namespace}/${p.pod}`,
  type: (p) => p.type,
  connected: (p) => -Date.parse(p.connected),
};

export function Proxies() {
  const { data, error } = useEndpoint<ProxyList>('proxies', 'proxies');
  const [filter, setFilter] = useState('');
  const { sort, header } = useSort('name', columns);
  const { now } = useLive();
  if (!data) return error ? <Notice tone="bad">{error}</Notice> : <div className="loading" aria-busy="true">Reading…</div>;
  const rows = sort(data.items.filter((p) => matches(filter, p.namespace, p.pod, p.type, p.identity, ...Object.values(p.types ?? {}).map((t) => t.state))));
  return (
    <section className="panel">
      <div className="head">
        <h2>{plural(rows.length, 'proxy', 'proxies')}</h2>
        {data.world && <span className="dim">newest configuration {data.world}</span>}
        <Filter value={filter} onChange={setFilter} what="proxies" />
      </div>
      {rows.length === 0 ? <Empty title={filter ? 'No proxy matches' : 'No proxy is connected'} /> : (
        <table className="cards">
          <thead>
            <tr>
              {header('name', 'Proxy')}
              {header('type', 'Type')}
              {types.map((t) => <th key={t} scope="col"><abbr title={typeNames[t]}>{t}</abbr></th>)}
              <th scope="col">Identity</th>
              <th scope="col">Version</th>
              {header('connected', 'Connected', 'num')}
            </tr>
          </thead>
          <tbody>{rows.map((p) => <Row key={p.id} p={p} now={now} />)}</tbody>
        </table>
      )}
    </section>
  );
}

function Row({ p, now }: { p: Proxy; now: number }) {
  const refused = Object.entries(p.types ?? {}).filter(([, t]) => t.lastNack);
  return (
    <Fragment>
      <tr className={p.lost ? 'idle' : undefined}>
        <th scope="row"><Name name={p.pod} namespace={p.namespace} /></th>
        <td data-label="Type">{p.type === 'router' ? 'gateway' : p.type}</td>
        {types.map((t) => <td key={t} data-label={t} className="sync"><Sync name={t} status={p.types?.[t]} lost={!!p.lost} /></td>)}
        <td data-label="Identity" className="break">{shortIdentity(p.identity) || <span className="dim">–</span>}</td>
        <td data-label="Version">{p.version}</td>
        <td data-label={p.lost ? 'Lost' : 'Connected'} className="num">{p.lost ? <span className="bad">lost {age(p.lost, now)} ago</span> : age(p.connected, now)}</td>
      </tr>
      {refused.map(([name, t]) => (
        <tr key={name} className="detail">
          <td colSpan={10}>
            <div className={`nack ${t.lastNack!.cleared ? 'dim' : 'bad'}`}>
              <b>{name} {t.lastNack!.cleared ? `was refused ${age(t.lastNack!.time, now)} ago; a later version was taken` : `refused ${age(t.lastNack!.time, now)} ago; the last good version serves on`}</b>
              <code>{t.lastNack!.reason}</code>
            </div>
          </td>
        </tr>
      ))}
    </Fragment>
  );
}

function Sync({ name, status, lost }: { name: string; status: TypeStatus | undefined; lost: boolean }) {
  if (!status || status.state === 'NOT SENT') return <span className="chip none" title={`${typeNames[name]}: not asked for`}>–</span>;
  const kind = lost ? 'none' : status.state === 'SYNCED' ? 'good' : status.state === 'STALE' ? 'warn' : 'bad';
  const word = status.state === 'SYNCED' ? '' : status.state.toLowerCase() + ' ';
  return <span className={`chip ${kind}`} title={`${typeNames[name]}: ${status.state.toLowerCase()}, version ${status.version ?? 'none'}`}>{word}{status.resources}</span>;
}
