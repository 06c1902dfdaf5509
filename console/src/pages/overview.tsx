import { useState } from 'react';
import type { Overview as Data, Service } from '../api';
import { bytes, millis, percent, plural, rate, tone } from '../format';
import { useLive } from '../live';
import { href } from '../route';
import { Empty, Filter, matches, Name, useSort } from '../ui/bits';
import { Lock } from '../ui/icons';
import { Sparkline } from '../ui/sparkline';

export function Overview() {
  const { event } = useLive();
  if (!event) return <div className="loading" aria-busy="true">Looking at the mesh…</div>;
  return (
    <>
      <Tiles o={event.overview} />
      <Services o={event.overview} />
    </>
  );
}

function Tiles({ o }: { o: Data }) {
  const t = o.traffic;
  return (
    <section className="tiles" aria-label="The mesh at a glance">
      <div className="tile wide">
        <span className="label">Requests per second</span>
        <span className="value">{rate(t.rate)}</span>
        <Sparkline history={o.history} width={240} height={40} />
      </div>
      <div className={`tile ${tone(t)}`}>
        <span className="label">Success</span>
        <span className="value">{percent(t.success)}</span>
        <span className="hint">{t.refused ? `${percent(t.refused)} answered with 4xx` : t.success == null ? 'no request yet' : 'as the callers saw it'}</span>
      </div>
      <div className="tile">
        <span className="label">Latency p50 · p99</span>
        <span className="value small">{millis(t.p50)} <span className="dim">·</span> {millis(t.p99)}</span>
        <span className="hint">over all calls between services</span>
      </div>
      <div className="tile">
        <span className="label">mTLS</span>
        <span className="value">{percent(t.mtls)}</span>
        <span className="hint">{t.mtls == null ? 'no call yet' : t.mtls >= 1 ? 'every call is encrypted and known by identity' : 'some calls are plain text'}</span>
      </div>
      <a className={`tile ${o.pods.ready < o.pods.total ? 'warn' : ''}`} href={href('pods')}>
        <span className="label">Pods ready</span>
        <span className="value">{o.pods.ready}<span className="of">/{o.pods.total}</span></span>
        <span className="hint">{o.pods.ready < o.pods.total ? plural(o.pods.total - o.pods.ready, 'pod') + ' not ready' : 'all of them'}</span>
      </a>
      <a className={`tile ${o.refused ? 'bad' : ''}`} href={href('proxies')}>
        <span className="label">Proxies in sync</span>
        <span className="value">{o.proxies.ready}<span className="of">/{o.proxies.total}</span></span>
        <span className="hint">{o.refused ? `${plural(o.refused, 'proxy', 'proxies')} refused a configuration` : o.problems ? `${plural(o.problems, 'problem')} in files` : 'none refused anything'}</span>
      </a>
    </section>
  );
}

const columns: Record<string, (s: Service) => string | number> = {
  name: (s) => `${s.namespace}/${s.name}`,
  rate: (s) => s.traffic.rate,
  success: (s) => s.traffic.success ?? 2,
  p50: (s) => s.traffic.p50 ?? -1,
  p99: (s) => s.traffic.p99 ?? -1,
};

function Services({ o }: { o: Data }) {
  const [filter, setFilter] = useState('');
  const { sort, header } = useSort('name', columns);
  const rows = sort(o.services.filter((s) => matches(filter, s.namespace, s.name, ...s.versions.map((v) => v.version))));
  const quiet = o.traffic.rate === 0 && !o.traffic.tcp;
  return (
    <section className="panel">
      <div className="head">
        <h2>{plural(rows.length, 'service')}</h2>
        <Filter value={filter} onChange={setFilter} what="services" />
      </div>
      {quiet && o.covered > 3 && <p className="hintline">No traffic in this window. Open the ingress in a browser, or call a service with <code>weft exec POD -- curl …</code></p>}
      {rows.length === 0 ? <Empty title={filter ? 'No service matches' : 'No service yet'}>{!filter && 'Apply a Service and a Deployment with weft apply.'}</Empty> : (
        <table className="cards">
          <thead>
            <tr>
              {header('name', 'Service')}
              <th scope="col">Last 5 minutes</th>
              {header('rate', 'Requests/s', 'num')}
              {header('success', 'Success', 'num')}
              {header('p50', 'p50', 'num')}
              {header('p99', 'p99', 'num')}
              <th scope="col">Versions reached</th>
              <th scope="col">mTLS</th>
              <th scope="col" className="num">Pods</th>
            </tr>
          </thead>
          <tbody>{rows.map((s) => <Row key={s.namespace + '/' + s.name} s={s} />)}</tbody>
        </table>
      )}
    </section>
  );
}

function Row({ s }: { s: Service }) {
  const t = s.traffic;
  const k = tone(t);
  return (
    <tr className={k === 'idle' && !t.tcp ? 'idle' : undefined}>
      <th scope="row"><a href={href('graph', { focus: `${s.namespace}/${s.name}` })}><Name name={s.name} namespace={s.known ? s.namespace : `${s.namespace || 'unknown'} · not in the configuration`} /></a></th>
      <td className="sparkcell"><Sparkline history={s.history} /></td>
      <td className="num" data-label="Requests/s">{t.tcp ? <TCPRate s={s} /> : rate(t.rate)}</td>
      <td className={`num ${k}`} data-label="Success">{percent(t.success)}{!!t.refused && <span className="sub warn">{percent(t.refused)} 4xx</span>}</td>
      <td className="num" data-label="p50">{millis(t.p50)}</td>
      <td className="num" data-label="p99">{millis(t.p99)}</td>
      <td className="versions" data-label="Versions"><Versions s={s} /></td>
      <td data-label="mTLS"><Lock share={t.mtls} /></td>
      <td className={`num ${s.pods.ready < s.pods.total ? 'warn' : ''}`} data-label="Pods">{s.pods.total ? `${s.pods.ready}/${s.pods.total}` : <span className="dim">–</span>}</td>
    </tr>
  );
}

function TCPRate({ s }: { s: Service }) {
  const { tcp, rate: r } = s.traffic;
  if (!tcp) return null;
  return <>{r > 0 && <>{rate(r)} </>}<span title={`${bytes(tcp.sent)}/s to callers, ${bytes(tcp.received)}/s from them`}>{bytes(tcp.sent + tcp.received)}/s</span><span className="sub">{plural(tcp.open, 'connection')}</span></>;
}

function Versions({ s }: { s: Service }) {
  if (!s.versions.length) return <span className="dim">–</span>;
  return (
    <div className="shares">
      <div className="bar" aria-hidden="true">
        {s.versions.map((v, i) => <i key={v.version} className={v.version === 'unknown' ? 'none' : `c${i % 6}`} style={{ flexGrow: v.share }} />)}
      </div>
      <span className="legend">
        {s.versions.map((v, i) => (
          <span key={v.version}><i className={v.version === 'unknown' ? 'none' : `c${i % 6}`} aria-hidden="true" />{v.version === 'unknown' ? 'unanswered' : v.version} {Math.round(v.share * 100)}&#8239;%</span>
        ))}
      </span>
    </div>
  );
}
