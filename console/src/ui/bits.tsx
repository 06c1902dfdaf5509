import { useState, type ReactNode } from 'react';
import { Icon } from './icons';

export function Notice({ tone, children }: { tone: 'warn' | 'bad' | 'idle'; children: ReactNode }) {
  return (
    <div className={`notice ${tone}`} role="status">
      {tone !== 'idle' && <Icon name="warn" />}
      <div>{children}</div>
    </div>
  );
}

export function Filter({ value, onChange, what }: { value: string; onChange: (v: string) => void; what: string }) {
  return (
    <label className="filter">
      <Icon name="search" />
      <input type="search" value={value} placeholder={`Filter ${what}`} aria-label={`Filter ${what}`} onChange={(e) => onChange(e.target.value)} />
    </label>
  );
}

/** matches says whether each word of a filter is in some of the texts. */
export function matches(filter: string, ...texts: (string | undefined)[]): boolean {
  const all = texts.join(' ').toLowerCase();
  return filter.toLowerCase().split(/\s+/).every((word) => all.includes(word));
}

export type Sort<T> = { key: string; down: boolean; by: Record<string, (row: T) => string | number> };

/** useSort sorts rows by a column that a person chooses. */
export function useSort<T>(first: string, by: Record<string, (row: T) => string | number>) {
  const [state, setState] = useState({ key: first, down: false });
  const sort = (rows: T[]): T[] => {
    const value = by[state.key];
    if (!value) return rows;
    const sign = state.down ? -1 : 1;
    return [...rows].sort((a, b) => {
      const x = value(a);
      const y = value(b);
      return x < y ? -sign : x > y ? sign : 0;
    });
  };
  const header = (key: string, label: string, className?: string) => (
    <th scope="col" className={className} aria-sort={state.key === key ? (state.down ? 'descending' : 'ascending') : undefined}>
      <button type="button" onClick={() => setState((s) => ({ key, down: s.key === key ? !s.down : className === 'num' }))}>
        {label}
        <span className="arrow" aria-hidden="true">{state.key === key ? (state.down ? '↓' : '↑') : ''}</span>
      </button>
    </th>
  );
  return { sort, header };
}

export function Name({ name, namespace }: { name: ReactNode; namespace?: string }) {
  return (
    <span className="name">
      <span className="main">{name}</span>
      {namespace && <span className="sub">{namespace}</span>}
    </span>
  );
}

export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <div className="empty">
      <p className="title">{title}</p>
      {children && <p>{children}</p>}
    </div>
  );
}
