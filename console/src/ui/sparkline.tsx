import type { History } from '../api';
import { rate } from '../format';

/** area splits a series at its gaps, and returns one closed outline and one line for each piece. Points are in a box of width by height. */
export function area(values: (number | null)[], top: number, width: number, height: number): { line: string; fill: string } {
  const step = width / Math.max(1, values.length - 1);
  let line = '';
  let fill = '';
  let begin: number | null = null;
  const y = (v: number) => (height - (top > 0 ? v / top : 0) * height).toFixed(1);
  const x = (i: number) => (i * step).toFixed(1);
  const close = (end: number) => {
    if (begin != null) fill += `L${x(end)} ${height}L${x(begin)} ${height}Z`;
    begin = null;
  };
  values.forEach((v, i) => {
    if (v == null) return close(i - 1);
    const cmd = begin == null ? 'M' : 'L';
    begin ??= i;
    line += `${cmd}${x(i)} ${y(v)}`;
    fill += `${cmd}${x(i)} ${y(v)}`;
  });
  close(values.length - 1);
  return { line, fill };
}

export function Sparkline({ history, width = 120, height = 28 }: { history: History | undefined; width?: number; height?: number }) {
  if (!history) return <svg className="spark" viewBox={`0 0 ${width} ${height}`} preserveAspectRatio="none" aria-hidden="true"><path className="base" d={`M0 ${height - 0.5}H${width}`} /></svg>;
  const seen = history.rate.filter((v) => v != null);
  const top = Math.max(0.1, ...seen) * 1.1;
  const all = area(history.rate, top, width, height);
  const bad = area(history.failed, top, width, height);
  const minutes = Math.round((history.step * history.rate.length) / 60);
  return (
    <svg className="spark" viewBox={`0 0 ${width} ${height}`} preserveAspectRatio="none" role="img" aria-label={`requests per second over ${minutes} minutes, highest ${rate(Math.max(0, ...seen))}`}>
      <path className="base" d={`M0 ${height - 0.5}H${width}`} />
      <path className="fill" d={all.fill} />
      <path className="line" d={all.line} vectorEffect="non-scaling-stroke" />
      {history.failed.some((v) => v) && <path className="failed" d={bad.fill} />}
    </svg>
  );
}
