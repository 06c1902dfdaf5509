import { describe, expect, it } from 'vitest';
import { edgePath, labelPoints, layout, type LayoutNode, type LayoutOptions } from './layout';

const options: LayoutOptions = { width: 160, height: 50, layerGap: 100, gap: 20, groupPad: 10, groupHead: 18, down: false };

const node = (id: string, group?: string): LayoutNode => ({ id, label: id, group });
const edge = (source: string, target: string) => ({ id: `${source}>${target}`, source, target });

const bookinfo = {
  nodes: [node('gateway'), node('page'), node('reviews-v1', 'reviews'), node('details'), node('reviews-v3', 'reviews'), node('reviews-v2', 'reviews'), node('ratings')],
  edges: [
    edge('gateway', 'page'), edge('page', 'details'), edge('page', 'reviews-v1'), edge('page', 'reviews-v2'), edge('page', 'reviews-v3'),
    edge('reviews-v2', 'ratings'), edge('reviews-v3', 'ratings'),
  ],
};

describe('layout', () => {
  it('draws callers before the called', () => {
    const l = layout(bookinfo.nodes, bookinfo.edges, options);
    for (const e of bookinfo.edges) expect(l.nodes.get(e.source)!.x).toBeLessThan(l.nodes.get(e.target)!.x);
  });

  it('puts all nodes inside, none over another', () => {
    for (const down of [false, true]) {
      const l = layout(bookinfo.nodes, bookinfo.edges, { ...options, down });
      const at = [...l.nodes.values()];
      expect(at).toHaveLength(bookinfo.nodes.length);
      for (const [i, p] of at.entries()) {
        expect(p.x - 80).toBeGreaterThanOrEqual(0);
        expect(p.y - 25).toBeGreaterThanOrEqual(0);
        expect(p.x + 80).toBeLessThanOrEqual(l.width);
        expect(p.y + 25).toBeLessThanOrEqual(l.height);
        for (const q of at.slice(i + 1)) expect(Math.abs(p.x - q.x) >= 160 || Math.abs(p.y - q.y) >= 50).toBe(true);
      }
    }
  });

  it('keeps versions of one app together, in order, in a box', () => {
    const l = layout(bookinfo.nodes, bookinfo.edges, options);
    const y = (id: string) => l.nodes.get(id)!.y;
    expect(y('reviews-v1')).toBeLessThan(y('reviews-v2'));
    expect(y('reviews-v2')).toBeLessThan(y('reviews-v3'));
    expect(y('details') < y('reviews-v1') || y('details') > y('reviews-v3')).toBe(true);
    expect(l.groups.map((g) => g.group)).toEqual(['reviews']);
    const box = l.groups[0]!.box;
    for (const id of ['reviews-v1', 'reviews-v2', 'reviews-v3']) {
      expect(y(id) - 25).toBeGreaterThanOrEqual(box.y);
      expect(y(id) + 25).toBeLessThanOrEqual(box.y + box.height);
    }
    expect(y('details') + 25 <= box.y || y('details') - 25 >= box.y + box.height).toBe(true);
  });

  it('ends with circles and calls to oneself', () => {
    const l = layout([node('a'), node('b'), node('c')], [edge('a', 'b'), edge('b', 'c'), edge('c', 'a'), edge('b', 'b')], options);
    expect(l.nodes.size).toBe(3);
    expect(l.edges.get('c>a')![0]).toEqual(l.nodes.get('c'));
    expect(l.edges.has('b>b')).toBe(false);
  });

  it('leads long calls through the layers between', () => {
    const l = layout([node('a'), node('b'), node('c')], [edge('a', 'b'), edge('b', 'c'), edge('a', 'c')], options);
    expect(l.edges.get('a>c')).toHaveLength(3);
    expect(Math.abs(l.edges.get('a>c')![1]!.y - l.nodes.get('b')!.y)).toBeGreaterThanOrEqual(25);
  });

  it('is the same whatever the order of what it is given', () => {
    const a = layout(bookinfo.nodes, bookinfo.edges, options);
    const b = layout([...bookinfo.nodes].reverse(), bookinfo.edges, options);
    for (const n of bookinfo.nodes) expect(b.nodes.get(n.id)).toEqual(a.nodes.get(n.id));
  });

  it('draws nothing of nothing', () => {
    const l = layout([], [], options);
    expect(l.nodes.size).toBe(0);
    expect(Number.isFinite(l.width) && Number.isFinite(l.height)).toBe(true);
  });
});

describe('edgePath', () => {
  it('goes from side to side', () => expect(edgePath([{ x: 80, y: 25 }, { x: 340, y: 125 }], options)).toBe('M160 25C210 25 210 125 260 125'));
  it('is straight where it passes a layer', () =>
    expect(edgePath([{ x: 80, y: 25 }, { x: 340, y: 25 }, { x: 600, y: 25 }], options)).toBe('M160 25C210 25 210 25 260 25L420 25C470 25 470 25 520 25'));
  it('goes from bottom to top', () => expect(edgePath([{ x: 80, y: 25 }, { x: 80, y: 175 }], { ...options, down: true })).toBe('M80 50C80 100 80 100 80 150'));
});

describe('labelPoints', () => {
  it('lie between the nodes, none over another', () => {
    const l = layout(bookinfo.nodes, bookinfo.edges, options);
    const at = [...labelPoints(l, options, { width: 60, height: 20 })];
    expect(at).toHaveLength(bookinfo.edges.length);
    for (const [i, [id, p]] of at.entries()) {
      const e = bookinfo.edges.find((x) => x.id === id)!;
      expect(p.x).toBeGreaterThan(l.nodes.get(e.source)!.x + 80);
      expect(p.x).toBeLessThan(l.nodes.get(e.target)!.x - 80);
      for (const [, q] of at.slice(i + 1)) expect(Math.abs(p.x - q.x) >= 60 || Math.abs(p.y - q.y) >= 20).toBe(true);
    }
  });
});
