// Package admin is the contract between the weft command, the local runtime
// and a control plane on the same machine: JSON over HTTP on Unix sockets in
// the state directory (mode 0600, so the file system is the access control).
//
// The control plane serves SocketControl: objects, diagnostics, status, join
// tokens and names. The local runtime serves SocketRuntime: pods, logs, exec.
// The package holds plain values only; it starts nothing and imports no plane.
package admin

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"
)

// Names of the sockets and folders inside the state directory.
const (
	SocketControl = "control.sock" // served by control/server
	SocketRuntime = "runtime.sock" // served by local
	DirPods       = "pods"         // one Pod manifest for each running local pod, written by local, watched by control/source/file
	FileStore     = "config.db"    // the embedded object store (bbolt)
	DirCA         = "ca"           // root key and certificate of the self-made CA
)

// Paths served on SocketControl.
const (
	PathObjects = "/v1/objects" // GET ?kind=&namespace=&name=&watch=true -> ObjectList, or a stream of Event lines
	PathApply   = "/v1/apply"   // POST ApplyRequest -> ApplyResponse (422 with diagnostics when refused; nothing stored)
	PathDiff    = "/v1/diff"    // POST ApplyRequest -> DiffResponse
	PathDelete  = "/v1/delete"  // POST DeleteRequest -> ApplyResponse
	PathScale   = "/v1/scale"   // POST ScaleRequest -> ApplyResponse
	PathTokens  = "/v1/tokens"  // POST TokenRequest -> TokenResponse
	PathNames   = "/v1/names"   // GET ?watch=true -> NameTable, or a stream of NameTable lines
	PathStatus  = "/v1/status"  // GET -> ControlStatus
	PathRoot    = "/v1/root"    // GET -> PEM bundle of the trust domain's roots
	PathRetired = "/v1/retired" // GET ?namespace=&pod= -> Retired, after a wait of at most a second
)

// Paths served on SocketRuntime.
const (
	PathPods    = "/v1/pods"    // GET -> PodList
	PathLogs    = "/v1/logs"    // GET ?namespace=&pod=&container=&follow=&tail= -> text stream; without tail all that is kept
	PathRestart = "/v1/restart" // POST RestartRequest
	PathStop    = "/v1/stop"    // POST -> the runtime drains and ends
	PathSignal  = "/v1/signal"  // POST SignalRequest
	PathDial    = "/v1/dial"    // POST ?namespace=&pod=&address= with "Upgrade: weft-dial": a byte stream to an address as seen from inside the pod's network namespace (admin ports of sidecars)
	// Exec is not HTTP: see ExecRequest.
	SocketExec = "exec.sock"
)

// Object is one configuration object as the user wrote it, in JSON.
type Object struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
	Namespace  string          `json:"namespace,omitempty"`
	Name       string          `json:"name"`
	Source     string          `json:"source"` // "store", or the file it came from
	Revision   uint64          `json:"revision"`
	Raw        json.RawMessage `json:"raw"` // the whole object
}

// ObjectList answers a GET of PathObjects.
type ObjectList struct {
	Revision uint64   `json:"revision"`
	Items    []Object `json:"items"`
}

// EventType says what happened to an object.
type EventType string

const (
	EventPut    EventType = "PUT"
	EventDelete EventType = "DELETE"
	EventSynced EventType = "SYNCED" // everything that existed when the watch began has been sent
)

// Event is one line of a watch of PathObjects.
type Event struct {
	Type   EventType `json:"type"`
	Object *Object   `json:"object,omitempty"`
}

// File is one YAML file (it may hold several documents) as the user named it.
type File struct {
	Name    string `json:"name"`
	Content string `json:"content"`
}

// ApplyRequest asks for files to be checked against the whole mesh and stored.
// Either everything is stored or nothing.
type ApplyRequest struct {
	Files     []File `json:"files"`
	Namespace string `json:"namespace,omitempty"` // for objects that name none; default "default"
	DryRun    bool   `json:"dryRun,omitempty"`
}

// Action says what apply did with one object.
type Action string

const (
	ActionCreated    Action = "created"
	ActionConfigured Action = "configured"
	ActionUnchanged  Action = "unchanged"
	ActionDeleted    Action = "deleted"
)

// Applied is the outcome for one object.
type Applied struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	Action    Action `json:"action"`
}

// ApplyResponse answers apply, delete and scale. With Severity error among the
// diagnostics nothing was stored.
type ApplyResponse struct {
	Results     []Applied    `json:"results,omitempty"`
	World       string       `json:"world,omitempty"` // the World that holds the change
	Diagnostics []Diagnostic `json:"diagnostics,omitempty"`
}

// Severity of a diagnostic.
type Severity string

const (
	SeverityError   Severity = "error"
	SeverityWarning Severity = "warning"
)

// Diagnostic says what is wrong, where, and what would be right.
type Diagnostic struct {
	Severity Severity `json:"severity"`
	Code     string   `json:"code"`             // stable, kebab-case: "unknown-subset"
	File     string   `json:"file,omitempty"`   // as the user named it
	Line     int      `json:"line,omitempty"`   // 1-based
	Column   int      `json:"column,omitempty"` // 1-based
	Object   string   `json:"object,omitempty"` // "VirtualService default/reviews"
	Field    string   `json:"field,omitempty"`  // "spec.http[0].route[1].destination.subset"
	Value    string   `json:"value,omitempty"`  // what was found
	Message  string   `json:"message"`          // what is wrong
	Hint     string   `json:"hint,omitempty"`   // what would be right
}

// DiffResponse answers PathDiff.
type DiffResponse struct {
	Changes     []Change     `json:"changes,omitempty"`
	Diagnostics []Diagnostic `json:"diagnostics,omitempty"`
}

// Change is one object before and after, as YAML; empty when absent.
type Change struct {
	Applied
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
}

// ObjectRef names one object.
type ObjectRef struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// DeleteRequest removes objects by name or by the files they came from.
type DeleteRequest struct {
	Refs      []ObjectRef `json:"refs,omitempty"`
	Files     []File      `json:"files,omitempty"`
	Namespace string      `json:"namespace,omitempty"`
}

// ScaleRequest sets the replicas of a Deployment.
type ScaleRequest struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Replicas  int32  `json:"replicas"`
}

// TokenRequest asks for a single-use join token for one workload identity.
type TokenRequest struct {
	Namespace      string        `json:"namespace"`
	ServiceAccount string        `json:"serviceAccount"`
	TTL            time.Duration `json:"ttl"` // default 10 minutes, at most 24 hours
}

// TokenResponse holds the token, which is shown once and stored hashed.
type TokenResponse struct {
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
}

// NameTable is what a DNS server in the mesh answers. Keys are lower case full
// names without the trailing dot; short and namespaced forms are listed too,
// keyed by client namespace in Short.
type NameTable struct {
	Version string              `json:"version"`
	Names   map[string][]string `json:"names"` // full name -> IP addresses
	// Auto are names for clients whose connections a sidecar takes, and for nobody
	// else, not even the sidecar: addresses of ServiceEntries that bring none.
	Auto map[string][]string `json:"auto,omitempty"`
	// Domain is the cluster domain, default "cluster.local": a search list
	// of <ns>.svc.<Domain>, svc.<Domain>, <Domain> makes short names work.
	Domain string `json:"domain"`
}

// ControlStatus is what `weft status` shows of a control plane.
type ControlStatus struct {
	Version  string        `json:"version"`
	Started  time.Time     `json:"started"`
	World    string        `json:"world"` // version of the current World
	Objects  int           `json:"objects"`
	Services int           `json:"services"`
	Problems []Diagnostic  `json:"problems,omitempty"` // of files being watched that were refused
	Proxies  []ProxyStatus `json:"proxies"`
}

// ProxyStatus is one connected (or lately lost) proxy.
type ProxyStatus struct {
	ID        string                `json:"id"` // node ID: sidecar~ip~pod.ns~domain
	Namespace string                `json:"namespace"`
	Pod       string                `json:"pod"`
	Type      string                `json:"type"` // sidecar, router
	Version   string                `json:"version"`
	Identity  string                `json:"identity"` // SPIFFE ID that the stream proved
	World     string                `json:"world"`    // version of the last World that it has all of
	Connected time.Time             `json:"connected"`
	Lost      *time.Time            `json:"lost,omitempty"`
	Types     map[string]TypeStatus `json:"types"` // by short name: CDS, EDS, LDS, RDS, SDS
}

// Sync states.
const (
	SyncSynced  = "SYNCED"
	SyncStale   = "STALE"    // sent, not yet acknowledged
	SyncNotSent = "NOT SENT" // never asked for
	SyncRefused = "REFUSED"  // NACKed; the proxy keeps its last good config
)

// TypeStatus is the state of one xDS type on one proxy.
type TypeStatus struct {
	State     string    `json:"state"`
	Version   string    `json:"version,omitempty"` // last acknowledged
	Resources int       `json:"resources"`
	LastAck   time.Time `json:"lastAck,omitempty"`
	LastNack  *Nack     `json:"lastNack,omitempty"`
}

// Nack is the last refusal of a type.
type Nack struct {
	Time    time.Time `json:"time"`
	Version string    `json:"version"`
	Reason  string    `json:"reason"`
	Cleared bool      `json:"cleared"` // a later version was acknowledged
}

// PodPhase as Kubernetes names it.
type PodPhase string

const (
	PodPending   PodPhase = "Pending"
	PodRunning   PodPhase = "Running"
	PodFailed    PodPhase = "Failed"
	PodSucceeded PodPhase = "Succeeded"
	PodStopping  PodPhase = "Terminating"
)

// Pod is one local pod as `weft ps` shows it.
type Pod struct {
	Namespace      string            `json:"namespace"`
	Name           string            `json:"name"`
	Deployment     string            `json:"deployment"`
	Labels         map[string]string `json:"labels,omitempty"`
	ServiceAccount string            `json:"serviceAccount"`
	IP             string            `json:"ip"`
	Phase          PodPhase          `json:"phase"`
	Ready          bool              `json:"ready"`
	Sidecar        bool              `json:"sidecar"`
	Restarts       int               `json:"restarts"`
	Started        time.Time         `json:"started"`
	Containers     []Container       `json:"containers"`
	Message        string            `json:"message,omitempty"` // why it is not ready
}

// Container is one process of a pod; the sidecar is named "istio-proxy".
type Container struct {
	Name     string `json:"name"`
	PID      int    `json:"pid,omitempty"`
	Ready    bool   `json:"ready"`
	Restarts int    `json:"restarts"`
	State    string `json:"state"`
	RSSBytes int64  `json:"rssBytes,omitempty"`
}

// Retired answers PathRetired: whether a pod that is ending gets no new requests any more.
type Retired struct {
	// Done: the pod is out of service and every connected proxy has acknowledged that.
	Done bool `json:"done"`
	// Behind are the node IDs of proxies that have not.
	Behind []string `json:"behind,omitempty"`
}

// Rollout is how far the pods of a Deployment are.
type Rollout struct {
	Namespace  string `json:"namespace"`
	Deployment string `json:"deployment"`
	Object     string `json:"object"` // Digest of the object that the runtime follows
	Done       bool   `json:"done"`   // all pods are of it and ready, and no other is left
	Message    string `json:"message,omitempty"`
}

// Digest identifies an object's content.
func Digest(o Object) string {
	sum := sha256.Sum256(o.Raw)
	return hex.EncodeToString(sum[:])
}

// PodList answers PathPods.
type PodList struct {
	Items    []Pod     `json:"items"`
	Rollouts []Rollout `json:"rollouts,omitempty"`
}

// RestartRequest restarts a Deployment's pods one by one, or one container of one pod.
type RestartRequest struct {
	Namespace  string `json:"namespace"`
	Deployment string `json:"deployment,omitempty"`
	Pod        string `json:"pod,omitempty"`
	Container  string `json:"container,omitempty"`
	// Hot starts the sidecar's (or gateway's) successor, which takes over its listening sockets, before it ends; the
	// answer comes when the successor serves.
	Hot bool `json:"hot,omitempty"`
}

// SignalRequest sends a signal to the process group of one container's program,
// or with Pod PodControlPlane and no namespace to the control plane when that
// is a process of its own. For tests of faults.
type SignalRequest struct {
	Namespace string `json:"namespace,omitempty"`
	Pod       string `json:"pod"`
	Container string `json:"container,omitempty"` // "" means the first program
	Signal    string `json:"signal"`              // "SIGKILL", "KILL" or "9"
}

// PodControlPlane stands for the control plane's own process in PathSignal and
// PathLogs, when the local runtime supervises one.
const PodControlPlane = "control-plane"

// ExecRequest is sent as one JSON line on SocketExec with the caller's stdin,
// stdout and stderr attached as file descriptors (SCM_RIGHTS). The answer is
// one JSON line, ExecResult, when the command has ended; closing the socket
// ends the command.
type ExecRequest struct {
	Namespace string   `json:"namespace"`
	Pod       string   `json:"pod"` // or deployment/NAME
	Command   []string `json:"command"`
	Env       []string `json:"env,omitempty"`
	Dir       string   `json:"dir,omitempty"`
}

// ExecResult ends an exec.
type ExecResult struct {
	ExitCode int    `json:"exitCode"`
	Error    string `json:"error,omitempty"`
}

// Error is the body of every answer that is not 2xx (apply's 422 excepted).
type Error struct {
	Message string `json:"error"`
	Hint    string `json:"hint,omitempty"`
}
