// The console's answers, as observe/console/api.go and api/admin write them.

export interface TCP { open: number; opened: number; sent: number; received: number }

export interface Traffic {
  rate: number;
  success: number | null;
  refused: number | null;
  p50: number | null;
  p99: number | null;
  mtls: number | null;
  tcp?: TCP;
}

export interface Ready { total: number; ready: number }
export interface History { step: number; rate: (number | null)[]; failed: (number | null)[] }
export interface Version { version: string; share: number; success: number | null }

export interface Service {
  namespace: string;
  name: string;
  known: boolean;
  pods: Ready;
  traffic: Traffic;
  versions: Version[];
  history?: History;
}

export interface Overview {
  at: string;
  window: number;
  covered: number;
  control: { error?: string; version?: string; started?: string; world?: string; objects: number; services: number };
  pods: Ready;
  proxies: Ready;
  refused: number;
  problems: number;
  traffic: Traffic;
  history: History;
  services: Service[];
  truncated?: boolean;
  error?: string;
}

export type NodeKind = 'workload' | 'gateway' | 'service' | 'outside' | 'external';

export interface GraphNode {
  id: string;
  kind: NodeKind;
  namespace?: string;
  name: string;
  app?: string;
  version?: string;
  pods: Ready;
  traffic: Traffic;
}

export interface GraphEdge { id: string; source: string; target: string; service: string; protocol: string; traffic: Traffic }
export interface Graph { at: string; window: number; covered: number; nodes: GraphNode[]; edges: GraphEdge[]; truncated?: boolean }
export interface Revisions { pods: number; proxies: number; objects: number }
export interface LiveEvent { overview: Overview; graph: Graph; revisions: Revisions }

export interface Container { name: string; pid?: number; ready: boolean; restarts: number; state: string; rssBytes?: number }

export interface Pod {
  namespace: string;
  name: string;
  deployment: string;
  serviceAccount: string;
  ip: string;
  phase: string;
  ready: boolean;
  sidecar: boolean;
  restarts: number;
  started: string;
  containers: Container[] | null;
  message?: string;
}

export interface PodList { items: Pod[]; scrapeErrors?: Record<string, string>; error?: string }

export interface Nack { time: string; version: string; reason: string; cleared: boolean }
export interface TypeStatus { state: string; version?: string; resources: number; lastAck?: string; lastNack?: Nack }

export interface Proxy {
  id: string;
  namespace: string;
  pod: string;
  type: string;
  version: string;
  identity: string;
  world: string;
  connected: string;
  lost?: string;
  types: Record<string, TypeStatus> | null;
}

export interface ProxyList { world?: string; items: Proxy[]; error?: string }

export interface ObjectHead { apiVersion: string; kind: string; namespace?: string; name: string; source: string; revision: number }

export interface Problem {
  severity: string;
  code: string;
  file?: string;
  line?: number;
  column?: number;
  object?: string;
  field?: string;
  value?: string;
  message: string;
  hint?: string;
}

export interface ObjectList { items: ObjectHead[]; problems: Problem[]; error?: string }
export interface MeshObject extends ObjectHead { yaml: string }

/** get reads one endpoint; what the console says went wrong becomes the error's message. */
export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  const resp = await fetch('/api/v1/' + path, { signal: signal ?? null });
  const body: unknown = await resp.json().catch(() => null);
  if (!resp.ok) {
    const said = body && typeof body === 'object' && 'error' in body ? String(body.error) : `answer ${resp.status}`;
    throw new Error(said);
  }
  return body as T;
}
