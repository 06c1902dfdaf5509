// How numbers are written. Pure functions; see format.test.ts.

const none = '–';

/** rate of anything per second. */
export function rate(n: number | null | undefined): string {
  if (n == null) return none;
  if (n === 0) return '0';
  if (n < 0.1) return '<0.1';
  if (n < 100) return n.toFixed(1);
  if (n < 1000) return n.toFixed(0);
  if (n < 10_000) return (n / 1000).toFixed(1) + 'k';
  return (n / 1000).toFixed(0) + 'k';
}

/** percent of a share. A share that is not whole is never written as 100 %, and one that is not nothing never as 0 %. */
export function percent(share: number | null | undefined): string {
  if (share == null) return none;
  if (share >= 1) return '100 %';
  if (share <= 0) return '0 %';
  const p = share * 100;
  if (p > 99.99) return '99.99 %';
  if (p >= 99) return (Math.floor(p * 100) / 100).toFixed(2) + ' %';
  if (p < 0.1) return '<0.1 %';
  if (p < 10) return p.toFixed(1) + ' %';
  return Math.min(99, Math.round(p)) + ' %';
}

/** millis writes a duration given in milliseconds. */
export function millis(ms: number | null | undefined): string {
  if (ms == null) return none;
  if (ms < 1) return ms.toFixed(2) + ' ms';
  if (ms < 10) return ms.toFixed(1) + ' ms';
  if (ms < 1000) return ms.toFixed(0) + ' ms';
  if (ms < 10_000) return (ms / 1000).toFixed(2) + ' s';
  return (ms / 1000).toFixed(0) + ' s';
}

/** bytes in powers of 1024. */
export function bytes(n: number | null | undefined): string {
  if (n == null) return none;
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let i = 0;
  while (n >= 1024 && i < units.length - 1) {
    n /= 1024;
    i++;
  }
  return (i === 0 || n >= 10 ? n.toFixed(0) : n.toFixed(1)) + ' ' + units[i];
}

/** age from a time stamp to now (milliseconds since 1970), in one or two units. */
export function age(since: string | undefined, now: number): string {
  const t = since ? Date.parse(since) : NaN;
  if (Number.isNaN(t) || t < 0) return none;
  const s = Math.max(0, Math.floor((now - t) / 1000));
  if (s < 60) return `${s}s`;
  if (s < 600) return `${Math.floor(s / 60)}m ${s % 60}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m`;
  if (s < 86_400) return `${Math.floor(s / 3600)}h ${Math.floor((s % 3600) / 60)}m`;
  return `${Math.floor(s / 86_400)}d ${Math.floor((s % 86_400) / 3600)}h`;
}

export function plural(n: number, one: string, many = one + 's'): string {
  return `${n} ${n === 1 ? one : many}`;
}

export type Tone = 'good' | 'warn' | 'bad' | 'idle';

/** tone of traffic: failures are bad from five in a hundred; any failure or refusal is worth a look. */
export function tone(t: { success: number | null; refused: number | null }): Tone {
  if (t.success == null) return 'idle';
  if (t.success < 0.95) return 'bad';
  if (t.success < 0.9995 || (t.refused ?? 0) > 0.005) return 'warn';
  return 'good';
}

/** shortIdentity takes the trust domain's scheme off a SPIFFE ID. */
export function shortIdentity(id: string): string {
  return id.replace(/^spiffe:\/\//, '');
}

/** baseName of a source: the last part of a path. */
export function baseName(source: string): string {
  return source.split('/').filter(Boolean).pop() ?? source;
}
