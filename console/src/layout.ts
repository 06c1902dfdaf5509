// A layered drawing of a graph: calls go from left to right (or from top to
// bottom), callers before the called. Pure functions; see layout.test.ts.
//
// 1. Calls that close a circle are turned round for the layout only.
// 2. Each node's layer is the longest way to it from a node nobody calls.
// 3. A call over several layers gets a place in each of them, so that it does not cross nodes.
// 4. Within a layer nodes are sorted by the mean of their neighbours' places; nodes of one group stay together.
// 5. Nodes are moved towards their neighbours as far as order and gaps allow.

export interface LayoutNode { id: string; group?: string; label: string }
export interface LayoutEdge { id: string; source: string; target: string }
export interface Point { x: number; y: number }
export interface Box { x: number; y: number; width: number; height: number }

export interface Layout {
  nodes: Map<string, Point>; // centres
  edges: Map<string, Point[]>; // the places that an edge goes through, ends included
  groups: { group: string; box: Box }[]; // of two or more nodes side by side
  width: number;
  height: number;
}

export interface LayoutOptions {
  width: number; // of a node
  height: number;
  layerGap: number;
  gap: number; // between nodes of a layer
  groupPad: number; // around a group
  groupHead: number; // over a group, for its name
  down: boolean; // layers go from top to bottom
}

interface Cell { id: string; group: string; label: string; real: boolean; layer: number; pos: number; size: number; before: number; after: number; up: Cell[]; dn: Cell[] }

export function layout(nodes: LayoutNode[], edges: LayoutEdge[], o: LayoutOptions): Layout {
  const ids = new Set(nodes.map((n) => n.id));
  const links = edges.filter((e) => ids.has(e.source) && ids.has(e.target) && e.source !== e.target);
  const forward = withoutCircles(nodes, links);
  const layerOf = layers(nodes, forward);
  const { rows, chains } = cells(nodes, forward, layerOf, o);
  order(rows);
  place(rows, o);
  return draw(nodes, edges, rows, chains, forward, o);
}

type Directed = { edge: LayoutEdge; from: string; to: string };

function withoutCircles(nodes: LayoutNode[], edges: LayoutEdge[]): Directed[] {
  const out = new Map<string, LayoutEdge[]>();
  const called = new Set<string>();
  for (const e of edges) {
    out.set(e.source, [...(out.get(e.source) ?? []), e]);
    called.add(e.target);
  }
  const state = new Map<string, 'open' | 'done'>();
  const back = new Set<LayoutEdge>();
  const visit = (id: string) => {
    state.set(id, 'open');
    for (const e of out.get(id) ?? []) {
      const s = state.get(e.target);
      if (s === 'open') back.add(e);
      else if (!s) visit(e.target);
    }
    state.set(id, 'done');
  };
  for (const n of nodes) if (!called.has(n.id)) visit(n.id);
  for (const n of nodes) if (!state.has(n.id)) visit(n.id);
  return edges.map((edge) => (back.has(edge) ? { edge, from: edge.target, to: edge.source } : { edge, from: edge.source, to: edge.target }));
}

function layers(nodes: LayoutNode[], edges: Directed[]): Map<string, number> {
  const layer = new Map<string, number>(nodes.map((n) => [n.id, 0]));
  const out = new Map<string, string[]>();
  const waits = new Map<string, number>(nodes.map((n) => [n.id, 0]));
  for (const e of edges) {
    out.set(e.from, [...(out.get(e.from) ?? []), e.to]);
    waits.set(e.to, waits.get(e.to)! + 1);
  }
  const ready = nodes.filter((n) => waits.get(n.id) === 0).map((n) => n.id);
  for (let id = ready.shift(); id !== undefined; id = ready.shift()) {
    for (const to of out.get(id) ?? []) {
      layer.set(to, Math.max(layer.get(to)!, layer.get(id)! + 1));
      waits.set(to, waits.get(to)! - 1);
      if (waits.get(to) === 0) ready.push(to);
    }
  }
  return layer;
}

function cells(nodes: LayoutNode[], edges: Directed[], layerOf: Map<string, number>, o: LayoutOptions) {
  const rows: Cell[][] = [];
  const byID = new Map<string, Cell>();
  const add = (c: Cell) => {
    (rows[c.layer] ??= []).push(c);
    return c;
  };
  const size = o.down ? o.width : o.height;
  const sorted = [...nodes].sort((a, b) => compare(a.group ?? a.id, b.group ?? b.id) || compare(a.label, b.label) || compare(a.id, b.id));
  for (const n of sorted) {
    byID.set(n.id, add({ id: n.id, group: n.group ?? n.id, label: n.label, real: true, layer: layerOf.get(n.id)!, pos: 0, size, before: 0, after: 0, up: [], dn: [] }));
  }
  const chains = new Map<LayoutEdge, Cell[]>();
  for (const e of edges) {
    const from = byID.get(e.from)!;
    const to = byID.get(e.to)!;
    const chain = [from];
    for (let l = from.layer + 1; l < to.layer; l++) {
      chain.push(add({ id: `${e.edge.id}@${l}`, group: `${e.edge.id}@${l}`, label: '', real: false, layer: l, pos: 0, size: 8, before: 0, after: 0, up: [], dn: [] }));
    }
    chain.push(to);
    for (let i = 1; i < chain.length; i++) {
      chain[i - 1]!.dn.push(chain[i]!);
      chain[i]!.up.push(chain[i - 1]!);
    }
    chains.set(e.edge, chain);
  }
  for (let i = 0; i < rows.length; i++) rows[i] ??= [];
  return { rows, chains };
}

function order(rows: Cell[][]) {
  for (const row of rows) row.forEach((c, i) => (c.pos = i));
  for (let sweep = 0; sweep < 6; sweep++) {
    const downwards = sweep % 2 === 0;
    const seq = downwards ? rows.slice(1) : rows.slice(0, -1).reverse();
    for (const row of seq) sortRow(row, (c) => (downwards ? c.up : c.dn));
  }
}

function sortRow(row: Cell[], near: (c: Cell) => Cell[]) {
  const mean = (cs: Cell[]) => {
    const all = cs.flatMap(near);
    return all.length ? all.reduce((s, c) => s + c.pos, 0) / all.length : null;
  };
  const groups = new Map<string, Cell[]>();
  for (const c of row) groups.set(c.group, [...(groups.get(c.group) ?? []), c]);
  const list = [...groups.values()].map((cs) => ({ cs, at: mean(cs) ?? cs.reduce((s, c) => s + c.pos, 0) / cs.length }));
  list.sort((a, b) => a.at - b.at || compare(a.cs[0]!.id, b.cs[0]!.id));
  row.length = 0;
  for (const g of list) row.push(...g.cs);
  row.forEach((c, i) => (c.pos = i));
}

function place(rows: Cell[][], o: LayoutOptions) {
  for (const row of rows) {
    row.forEach((c, i) => {
      const grouped = (j: number) => row[j]?.group === c.group && row[j]?.real;
      const inGroup = grouped(i - 1) || grouped(i + 1);
      c.before = inGroup && !grouped(i - 1) ? o.groupPad + (o.down ? 0 : o.groupHead) : 0;
      c.after = inGroup && !grouped(i + 1) ? o.groupPad : 0;
    });
    let at = 0;
    row.forEach((c, i) => {
      at += c.before + c.size / 2;
      c.pos = at;
      at += c.size / 2 + c.after + (i < row.length - 1 ? o.gap : 0);
    });
    for (const c of row) c.pos -= at / 2;
  }
  for (let sweep = 0; sweep < 10; sweep++) {
    const seq = sweep % 2 === 0 ? rows : [...rows].reverse();
    for (const row of seq) relax(row, o.gap);
  }
}

/** room between two neighbours' centres. */
const room = (a: Cell, b: Cell, gap: number) => a.size / 2 + a.after + gap + b.before + b.size / 2;

/** relax moves a row's cells towards the mean of their neighbours, keeping order and gaps. */
function relax(row: Cell[], gap: number) {
  const want = row.map((c) => {
    const near = [...c.up, ...c.dn];
    return near.length ? near.reduce((s, n) => s + n.pos, 0) / near.length : c.pos;
  });
  const low = [...want];
  for (let i = 1; i < row.length; i++) low[i] = Math.max(low[i]!, low[i - 1]! + room(row[i - 1]!, row[i]!, gap));
  const high = [...want];
  for (let i = row.length - 2; i >= 0; i--) high[i] = Math.min(high[i]!, high[i + 1]! - room(row[i]!, row[i + 1]!, gap));
  row.forEach((c, i) => (c.pos = (low[i]! + high[i]!) / 2));
}

function draw(nodes: LayoutNode[], edges: LayoutEdge[], rows: Cell[][], chains: Map<LayoutEdge, Cell[]>, directed: Directed[], o: LayoutOptions): Layout {
  const margin = 16;
  let min = Infinity;
  let max = -Infinity;
  for (const c of rows.flat()) {
    min = Math.min(min, c.pos - c.size / 2 - c.before);
    max = Math.max(max, c.pos + c.size / 2 + c.after);
  }
  if (!nodes.length) min = max = 0;
  const depth = o.down ? o.height : o.width;
  const head = o.down ? o.groupHead + o.groupPad : o.groupPad;
  const at = (c: Cell): Point => {
    const along = margin + head + depth / 2 + c.layer * (depth + o.layerGap);
    const across = margin + c.pos - min;
    return o.down ? { x: across, y: along } : { x: along, y: across };
  };
  const out: Layout = { nodes: new Map(), edges: new Map(), groups: [], width: 0, height: 0 };
  const alongSize = 2 * margin + 2 * head + Math.max(1, rows.length) * (depth + o.layerGap) - o.layerGap;
  const acrossSize = 2 * margin + max - min;
  [out.width, out.height] = o.down ? [acrossSize, alongSize] : [alongSize, acrossSize];
  for (const c of rows.flat()) if (c.real) out.nodes.set(c.id, at(c));
  const reversed = new Set(directed.filter((d) => d.from !== d.edge.source).map((d) => d.edge));
  for (const e of edges) {
    const chain = chains.get(e);
    if (!chain) continue;
    const points = chain.map(at);
    if (reversed.has(e)) points.reverse();
    out.edges.set(e.id, points);
  }
  for (const row of rows) groupsOf(row, at, out, o);
  return out;
}

function groupsOf(row: Cell[], at: (c: Cell) => Point, out: Layout, o: LayoutOptions) {
  for (let i = 0; i < row.length; ) {
    let j = i + 1;
    while (j < row.length && row[j]!.group === row[i]!.group && row[j]!.real) j++;
    if (j - i > 1) {
      const a = at(row[i]!);
      const b = at(row[j - 1]!);
      const x = a.x - o.width / 2 - o.groupPad;
      const y = a.y - o.height / 2 - o.groupPad - o.groupHead;
      out.groups.push({ group: row[i]!.group, box: { x, y, width: b.x + o.width / 2 + o.groupPad - x, height: b.y + o.height / 2 + o.groupPad - y } });
    }
    i = j;
  }
}

const compare = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);

/** Span is a piece of an edge's way: a curve between two layers. Within a layer that it only passes an edge is straight. */
interface Span { from: Point; to: Point }

/** spans of an edge from side to side of its nodes, back of a call against the flow; arrow is room for its head. */
function spans(points: Point[], o: Pick<LayoutOptions, 'width' | 'height' | 'down'>, arrow: number): Span[] {
  const first = points[0]!;
  const last = points[points.length - 1]!;
  const side = (o.down ? last.y > first.y : last.x > first.x) ? 1 : -1;
  const depth = (side * (o.down ? o.height : o.width)) / 2;
  const shift = (p: Point, by: number): Point => (o.down ? { x: p.x, y: p.y + by } : { x: p.x + by, y: p.y });
  return points.slice(1).map((to, i) => ({ from: shift(points[i]!, depth), to: shift(to, -depth - (i === points.length - 2 ? side * arrow : 0)) }));
}

/** edgePath draws an edge. */
export function edgePath(points: Point[], o: Pick<LayoutOptions, 'width' | 'height' | 'down'>, arrow = 0): string {
  return spans(points, o, arrow)
    .map(({ from: a, to: b }, i) => {
      const [c1, c2] = o.down
        ? [{ x: a.x, y: (a.y + b.y) / 2 }, { x: b.x, y: (a.y + b.y) / 2 }]
        : [{ x: (a.x + b.x) / 2, y: a.y }, { x: (a.x + b.x) / 2, y: b.y }];
      return `${i === 0 ? 'M' : 'L'}${at(a)}C${at(c1)} ${at(c2)} ${at(b)}`;
    })
    .join('');
}

const at = (p: Point) => `${Math.round(p.x * 10) / 10} ${Math.round(p.y * 10) / 10}`;

/** along is the point of a span's curve at t, from 0 to 1. */
function along({ from: a, to: b }: Span, t: number, down: boolean): Point {
  const mix = (p: number, q: number, f: number) => p + (q - p) * f;
  const across = t * t * (3 - 2 * t);
  // The control points are half-way: x(t) = 1.5 t (1-t)^2 + 1.5 t^2 (1-t) + t^3 of the way.
  const f = 1.5 * t * (1 - t) * (1 - t) + 1.5 * t * t * (1 - t) + t * t * t;
  return down ? { x: mix(a.x, b.x, across), y: mix(a.y, b.y, f) } : { x: mix(a.x, b.x, f), y: mix(a.y, b.y, across) };
}

/** Places on the last span that a label is tried at. */
const tries = [0.6, 0.45, 0.72, 0.33, 0.82, 0.22];

/** labelPoints finds a place for each edge's label of the given size where it covers no other label, as far as there is one. */
export function labelPoints(l: Layout, o: LayoutOptions, size: { width: number; height: number }): Map<string, Point> {
  const out = new Map<string, Point>();
  const taken: Point[] = [];
  const covers = (p: Point) => taken.filter((q) => Math.abs(p.x - q.x) < size.width && Math.abs(p.y - q.y) < size.height).length;
  for (const [id, points] of l.edges) {
    const last = spans(points, o, 0).pop();
    if (!last) continue;
    let best = along(last, tries[0]!, o.down);
    let least = Infinity;
    for (const t of tries) {
      const p = along(last, t, o.down);
      const n = covers(p);
      if (n < least) [best, least] = [p, n];
      if (n === 0) break;
    }
    taken.push(best);
    out.set(id, best);
  }
  return out;
}
