import { expect, it } from 'vitest';
import { tokens } from './yaml';

const kinds = (s: string) => tokens(s).map((t) => t.kind).join(' ');

it.each([
  ['kind: Service', 'key mark text'],
  ['  port: 9080', 'mark key mark number'],
  ['  - name: http', 'mark key mark text'],
  ['spec:', 'key mark'],
  ['  - reviews', 'mark text'],
  ['  run: |', 'mark key mark mark'],
  ['    curl http://a:80/', 'plain'],
  ['url: http://a:80/', 'key mark text'],
])('%s', (s, want) => {
  expect(kinds(s)).toBe(want);
  expect(tokens(s).map((t) => t.text).join('')).toBe(s);
});
