import { describe, expect, it } from 'vitest';
import { age, baseName, bytes, millis, percent, plural, rate, tone } from './format';

describe('percent', () => {
  it.each([
    [1, '100 %'],
    [0.999999, '99.99 %'],
    [0.9996, '99.96 %'],
    [0.99, '99.00 %'],
    [0.9888, '99 %'],
    [0.5, '50 %'],
    [0.012, '1.2 %'],
    [0.0001, '<0.1 %'],
    [0, '0 %'],
    [null, '–'],
  ])('writes %s as %s', (share, want) => expect(percent(share)).toBe(want));
});

describe('rate', () => {
  it.each([[0, '0'], [0.04, '<0.1'], [6.61, '6.6'], [123.4, '123'], [1234, '1.2k'], [45678, '46k'], [null, '–']])('writes %s as %s', (n, want) =>
    expect(rate(n)).toBe(want),
  );
});

describe('millis', () => {
  it.each([[0.43, '0.43 ms'], [4.92, '4.9 ms'], [87.2, '87 ms'], [7012, '7.01 s'], [30000, '30 s'], [null, '–']])('writes %s as %s', (n, want) =>
    expect(millis(n)).toBe(want),
  );
});

describe('bytes', () => {
  it.each([[0, '0 B'], [1023, '1023 B'], [1536, '1.5 KiB'], [38 << 20, '38 MiB']])('writes %s as %s', (n, want) => expect(bytes(n)).toBe(want));
});

describe('age', () => {
  const now = Date.parse('2026-11-21T12:00:00Z');
  it.each([
    ['2026-11-21T11:59:52Z', '8s'],
    ['2026-11-21T11:58:30Z', '1m 30s'],
    ['2026-11-21T11:15:00Z', '45m'],
    ['2026-11-21T08:30:00Z', '3h 30m'],
    ['2026-11-18T08:00:00Z', '3d 4h'],
    ['2026-11-21T12:00:05Z', '0s'],
    ['0001-01-01T00:00:00Z', '–'],
    [undefined, '–'],
  ])('of %s is %s', (since, want) => expect(age(since, now)).toBe(want));
});

describe('tone', () => {
  it.each([
    [{ success: null, refused: null }, 'idle'],
    [{ success: 1, refused: 0 }, 'good'],
    [{ success: 0.99, refused: 0 }, 'warn'],
    [{ success: 1, refused: 1 }, 'warn'],
    [{ success: 0.9, refused: 0 }, 'bad'],
  ] as const)('of %o is %s', (t, want) => expect(tone(t)).toBe(want));
});

it('plural and baseName', () => {
  expect(plural(1, 'pod')).toBe('1 pod');
  expect(plural(2, 'proxy', 'proxies')).toBe('2 proxies');
  expect(baseName('/a/b/bookinfo.yaml')).toBe('bookinfo.yaml');
  expect(baseName('store')).toBe('store');
});
