import { useMemo, useState } from 'react';
import type { MeshObject, ObjectHead, ObjectList, Problem } from '../api';
import { baseName, plural } from '../format';
import { useEndpoint } from '../live';
import { href } from '../route';
import { Empty, Filter, matches, Name, Notice } from '../ui/bits';
import { Icon } from '../ui/icons';
import { tokens } from '../yaml';

const keyOf = (o: ObjectHead) => `${o.kind}/${o.namespace ?? ''}/${o.name}`;

export function Config({ query }: { query: URLSearchParams }) {
  const { data, error } = useEndpoint<ObjectList>('objects', 'objects');
  const [filter, setFilter] = useState('');
  const kind = query.get('kind') ?? '';
  const name = query.get('name') ?? '';
  const namespace = query.get('namespace') ?? '';
  const kinds = useMemo(() => {
    const count = new Map<string, number>();
    for (const o of data?.items ?? []) count.set(o.kind, (count.get(o.kind) ?? 0) + 1);
    return [...count].sort(([a], [b]) => (a < b ? -1 : 1));
  }, [data]);
  if (!data) return error ? <Notice tone="bad">{error}</Notice> : <div className="loading" aria-busy="true">Reading…</div>;
  const rows = data.items.filter((o) => (!kind || o.kind === kind) && matches(filter, o.kind, o.namespace, o.name, o.source));
  return (
    <>
      {data.error && <Notice tone="warn">Objects could not be read: {data.error}</Notice>}
      {data.problems.length > 0 && <Problems problems={data.problems} />}
      <div className={`split ${name ? 'chosen' : ''}`}>
        <section className="panel list">
          <div className="head">
            <h2>{plural(rows.length, 'object')}</h2>
            <Filter value={filter} onChange={setFilter} what="objects" />
          </div>
          <nav className="kinds" aria-label="Kinds">
            <a href={href('config')} aria-current={!kind ? 'true' : undefined}>All <span>{data.items.length}</span></a>
            {kinds.map(([k, n]) => <a key={k} href={href('config', { kind: k })} aria-current={k === kind ? 'true' : undefined}>{k} <span>{n}</span></a>)}
          </nav>
          {rows.length === 0 ? <Empty title="No object matches" /> : (
            <ul className="objects">
              {rows.map((o) => {
                const chosen = o.kind === (query.get('of') ?? kind) && o.name === name && (o.namespace ?? '') === namespace;
                return (
                  <li key={keyOf(o)}>
                    <a href={href('config', { kind, of: o.kind, namespace: o.namespace, name: o.name })} aria-current={chosen ? 'true' : undefined}>
                      <Name name={o.name} namespace={o.namespace} />
                      {!kind && <span className="kind">{o.kind}</span>}
                      <span className="source" title={o.source}>{baseName(o.source)}</span>
                    </a>
                  </li>
                );
              })}
            </ul>
          )}
        </section>
        <section className="panel view" aria-label="Object">
          {name ? <View kind={query.get('of') ?? kind} namespace={namespace} name={name} back={href('config', { kind })} /> : <Empty title="Nothing chosen">Choose an object to see it as the mesh has it.</Empty>}
        </section>
      </div>
    </>
  );
}

function View({ kind, namespace, name, back }: { kind: string; namespace: string; name: string; back: string }) {
  const path = `object?${new URLSearchParams({ kind, namespace, name })}`;
  const { data, error } = useEndpoint<MeshObject>(path, 'objects');
  return (
    <>
      <div className="head">
        <a className="ghost" href={back} aria-label="Back to the list"><Icon name="back" /></a>
        <h2>{name}</h2>
        <span className="dim">{kind}{namespace && ` in ${namespace}`}</span>
      </div>
      {error && <Notice tone="warn">{error}</Notice>}
      {data && (
        <>
          <p className="hintline break">From {data.source === 'store' ? <>the store: change it with <code>weft apply</code></> : <>the file <code>{data.source}</code></>}</p>
          <pre className="yaml" tabIndex={0} aria-label={`${kind} ${name} as YAML`}><code>{data.yaml.split('\n').map((l, i) => <Line key={i} text={l} />)}</code></pre>
        </>
      )}
    </>
  );
}

function Line({ text }: { text: string }) {
  return <>{tokens(text).map((t, i) => (t.kind === 'plain' ? t.text : <span key={i} className={`y-${t.kind}`}>{t.text}</span>))}{'\n'}</>;
}

function Problems({ problems }: { problems: Problem[] }) {
  return (
    <section className="panel problems">
      <div className="head"><h2>Problems</h2><span className="dim">what was refused; the last good version serves on</span></div>
      <ul>
        {problems.map((p, i) => (
          <li key={i} className={p.severity === 'error' ? 'bad' : 'warn'}>
            <Icon name="warn" label={p.severity} />
            <div>
              <p className="what">{p.message}</p>
              <p className="where">
                {p.file && <code title={p.file}>{baseName(p.file)}{p.line ? `:${p.line}` : ''}{p.column ? `:${p.column}` : ''}</code>}
                {p.object && <span>{p.object}</span>}
                {p.field && <code>{p.field}{p.value ? ` = ${p.value}` : ''}</code>}
                <span className="dim">{p.code}</span>
              </p>
              {p.hint && <p className="fix"><b>Fix</b> {p.hint}</p>}
            </div>
          </li>
        ))}
      </ul>
    </section>
  );
}
