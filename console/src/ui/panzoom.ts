import { useCallback, useEffect, useRef, useState, type PointerEvent } from 'react';

interface View { x: number; y: number; k: number }

const minZoom = 0.2;
const maxZoom = 3;

/** fitted shows all of a drawing in a box, never larger than life by much. */
export function fitted(width: number, height: number, boxWidth: number, boxHeight: number): View {
  const k = Math.min(1.3, Math.max(minZoom, Math.min(boxWidth / width, boxHeight / height)));
  return { k, x: (boxWidth - width * k) / 2, y: (boxHeight - height * k) / 2 };
}

/** zoomed keeps the point (x, y) of the box where it is. */
export function zoomed(v: View, factor: number, x: number, y: number): View {
  const k = Math.min(maxZoom, Math.max(minZoom, v.k * factor));
  return { k, x: x - ((x - v.x) * k) / v.k, y: y - ((y - v.y) * k) / v.k };
}

/** useView moves and scales a drawing by wheel, drag and pinch. It shows all until someone moves it, and again when shape changes. */
export function useView(width: number, height: number, shape: string) {
  const svg = useRef<SVGSVGElement>(null);
  const [view, setView] = useState<View>({ x: 0, y: 0, k: 1 });
  const moved = useRef(false);
  const fingers = useRef(new Map<number, { x: number; y: number }>());

  const refit = useCallback(() => {
    const box = svg.current?.getBoundingClientRect();
    if (box?.width) setView(fitted(width, height, box.width, box.height));
  }, [width, height]);

  const fit = useCallback(() => {
    moved.current = false;
    refit();
  }, [refit]);

  useEffect(() => {
    moved.current = false;
  }, [shape]);

  useEffect(() => {
    const el = svg.current;
    if (!el) return;
    refit();
    const watch = new ResizeObserver(() => moved.current || refit());
    watch.observe(el);
    const wheel = (e: WheelEvent) => {
      e.preventDefault();
      const box = el.getBoundingClientRect();
      moved.current = true;
      setView((v) => zoomed(v, Math.exp(-e.deltaY * (e.deltaMode ? 0.05 : 0.0015)), e.clientX - box.x, e.clientY - box.y));
    };
    el.addEventListener('wheel', wheel, { passive: false });
    return () => {
      watch.disconnect();
      el.removeEventListener('wheel', wheel);
    };
  }, [refit]);

  const zoom = (factor: number) => {
    const box = svg.current?.getBoundingClientRect();
    if (!box) return;
    moved.current = true;
    setView((v) => zoomed(v, factor, box.width / 2, box.height / 2));
  };

  const handlers = {
    onPointerDown: (e: PointerEvent) => {
      fingers.current.set(e.pointerId, { x: e.clientX, y: e.clientY });
    },
    onPointerMove: (e: PointerEvent<SVGSVGElement>) => {
      const old = fingers.current.get(e.pointerId);
      const box = svg.current?.getBoundingClientRect();
      if (!old || !box) return;
      const dx = e.clientX - old.x;
      const dy = e.clientY - old.y;
      if (!e.currentTarget.hasPointerCapture(e.pointerId)) {
        if (Math.hypot(dx, dy) < 4) return; // a click that shook
        e.currentTarget.setPointerCapture(e.pointerId);
      }
      const other = [...fingers.current].find(([id]) => id !== e.pointerId)?.[1];
      fingers.current.set(e.pointerId, { x: e.clientX, y: e.clientY });
      moved.current = true;
      if (!other) return setView((v) => ({ ...v, x: v.x + dx, y: v.y + dy }));
      const before = Math.hypot(old.x - other.x, old.y - other.y);
      const after = Math.hypot(e.clientX - other.x, e.clientY - other.y);
      if (before > 0) setView((v) => zoomed(v, after / before, (e.clientX + other.x) / 2 - box.x, (e.clientY + other.y) / 2 - box.y));
    },
    onPointerUp: (e: PointerEvent) => void fingers.current.delete(e.pointerId),
    onPointerCancel: (e: PointerEvent) => void fingers.current.delete(e.pointerId),
    onPointerLeave: (e: PointerEvent) => void fingers.current.delete(e.pointerId),
  };
  return { svg, transform: `translate(${view.x} ${view.y}) scale(${view.k})`, zoom, fit, handlers };
}
