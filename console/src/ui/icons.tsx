// Icons, 16 by 16, drawn with the text's colour.
const paths = {
  overview: 'M2 13h12M3.5 13V8M8 13V3M12.5 13V6',
  graph: 'M4.5 8h2.500c1.5 0 1.5-4 3-4h1M7 8c1.5 0 1.5 4 3 4h1M1.5 8a1.5 1.5 0 1 0 3 0a1.5 1.5 0 1 0-3 0M11 4a1.5 1.5 0 1 0 3 0a1.5 1.5 0 1 0-3 0M11 12a1.5 1.5 0 1 0 3 0a1.5 1.5 0 1 0-3 0',
  proxies: 'M2 4.500h9l-2.5-2.500M14 11.500H5l2.5 2.500M11 4.500L8.5 7M5 11.500L7.5 9',
  config: 'M4 1.500h5.500L13 5v9.500H4zM9.5 1.500V5H13M6.5 8h4M6.5 11h4',
  pods: 'M8 1.500l5.5 3.250v6.500L8 14.500l-5.5-3.250v-6.500zM2.5 4.750L8 8l5.5-3.250M8 8v6.5',
  lock: 'M4 7h8v6.500H4zM5.5 7V5a2.5 2.5 0 0 1 5 0v2',
  unlock: 'M4 7h8v6.500H4zM5.5 7V4.500a2.5 2.5 0 0 1 4.9-.7',
  sun: 'M8 5.200a2.8 2.8 0 1 0 0 5.600a2.8 2.8 0 1 0 0-5.600M8 1v1.500M8 13.500V15M1 8h1.500M13.5 8H15M3 3l1 1M12 12l1 1M13 3l-1 1M4 12l-1 1',
  moon: 'M13.5 9.500A6 6 0 0 1 6.5 2.500a6 6 0 1 0 7 7z',
  auto: 'M8 2a6 6 0 1 0 0 12zM8 2a6 6 0 0 1 0 12',
  plus: 'M8 3v10M3 8h10',
  minus: 'M3 8h10',
  fit: 'M2 6V2h4M10 2h4v4M14 10v4h-4M6 14H2v-4',
  close: 'M4 4l8 8M12 4l-8 8',
  back: 'M10 3L5 8l5 5',
  warn: 'M8 2l6.5 11.500h-13zM8 6.500v3.500M8 11.800v.2',
  check: 'M3 8.500l3.5 3.500L13 4.5',
  search: 'M7 2.500a4.5 4.5 0 1 0 0 9a4.5 4.5 0 1 0 0-9M10.5 10.500L14 14',
} as const;

export type IconName = keyof typeof paths;

export function Icon({ name, label }: { name: IconName; label?: string }) {
  return (
    <svg className="icon" viewBox="0 0 16 16" width="16" height="16" fill="none" stroke="currentColor" strokeWidth="1.5" strokeLinecap="round" strokeLinejoin="round" role={label ? 'img' : undefined} aria-label={label} aria-hidden={label ? undefined : true}>
      <path d={paths[name]} />
    </svg>
  );
}

/** Lock tells how much of some traffic goes over mTLS. */
export function Lock({ share }: { share: number | null }) {
  if (share == null) return <span className="dim" title="no proxy on the called side tells">–</span>;
  if (share >= 1) return <span className="lock good" title="all over mTLS"><Icon name="lock" label="all over mTLS" /></span>;
  const p = Math.floor(share * 100);
  return (
    <span className="lock warn" title={`${p} % over mTLS, the rest in plain text`}>
      <Icon name="unlock" label="not all over mTLS" />
      {p} %
    </span>
  );
}
