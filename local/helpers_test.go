package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/api/admin/client"
	"weft.mesh/weft/node/netns"
)

// The test binary plays every part: the weft command (and so init and the
// runtime inside), weft-proxy, and the programs that run in pods.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "weft-proxy":
		os.Exit(fakeProxy(os.Args[1:]))
	case "weft-control":
		os.Exit(separateControl(os.Args[1]))
	case "testapp":
		os.Exit(testApp(os.Args[1:]))
	}
	if len(os.Args) > 1 && os.Args[1] == "mesh" {
		os.Exit(fakeWeft(os.Args))
	}
	os.Exit(m.Run())
}

// separateControl is the fake control plane as a process of its own.
func separateControl(socket string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	fmt.Println("control plane begins")
	if err := newFakeControl(socket).run(ctx); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// fakeWeft is a weft command: mesh STATEDIR INGRESS [separate].
func fakeWeft(argv []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	dir := argv[2]
	in, code, err := Enter(ctx, EnterConfig{Argv: argv, StateDir: dir, Listen: map[string]string{"ingress": argv[3]}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	if in == nil {
		return code
	}
	plane := newFakeControl(filepath.Join(dir, admin.SocketControl))
	bin := filepath.Join(filepath.Dir(dir), "bin")
	set := Settings{
		Inside: in, StateDir: dir, ProxyPath: filepath.Join(bin, "weft-proxy"), ProgramDirs: []string{bin},
		Environ:   append(os.Environ(), "SECRET=do-not-leak"),
		HostPorts: map[uint16]string{8080: "ingress"}, DrainDelay: 200 * time.Millisecond, SidecarWait: patience,
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Start: func(ctx context.Context, n NodeNet) error {
			fmt.Println("node", n.IP)
			for ctx.Err() == nil {
				if err := plane.run(ctx); err != nil {
					return err
				}
				time.Sleep(300 * time.Millisecond)
			}
			return nil
		},
	}
	if len(argv) > 4 {
		set.Start, set.ControlPlane = nil, &Command{Argv: []string{filepath.Join(bin, "weft-control"), filepath.Join(dir, admin.SocketControl)}}
	}
	r, err := New(set)
	if err == nil {
		err = r.Run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("ended")
	return 0
}

// fakeControl is a control plane's socket: objects in memory, changed by
// POST /test/put and /test/delete.
type fakeControl struct {
	path    string
	mu      sync.Mutex
	objects map[admin.ObjectRef]admin.Object
	vips    map[string]string
	changed chan struct{}
	tokens  int
}

// newFakeControl begins with the objects that it had when it ended.
func newFakeControl(path string) *fakeControl {
	f := &fakeControl{path: path, objects: map[admin.ObjectRef]admin.Object{}, vips: map[string]string{}, changed: make(chan struct{})}
	var old []admin.Object
	if b, err := os.ReadFile(path + ".json"); err == nil && json.Unmarshal(b, &old) == nil {
		for _, o := range old {
			f.put(o, false)
		}
	}
	return f
}

// save keeps the objects in the order of their addresses.
func (f *fakeControl) save() {
	var all []admin.Object
	for _, o := range f.objects {
		all = append(all, o)
	}
	slices.SortFunc(all, func(a, b admin.Object) int {
		return strings.Compare(f.vips[a.Name+"."+a.Namespace]+a.Kind, f.vips[b.Name+"."+b.Namespace]+b.Kind)
	})
	b, _ := json.Marshal(all)
	os.WriteFile(f.path+".json", b, 0o600)
}

func (f *fakeControl) run(ctx context.Context) error {
	os.Remove(f.path)
	ln, err := net.Listen("unix", f.path)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+admin.PathObjects, f.watchObjects)
	mux.HandleFunc("GET "+admin.PathNames, f.watchNames)
	mux.HandleFunc("GET "+admin.PathRoot, func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n")
	})
	mux.HandleFunc("POST "+admin.PathTokens, func(w http.ResponseWriter, r *http.Request) {
		var req admin.TokenRequest
		json.NewDecoder(r.Body).Decode(&req)
		f.mu.Lock()
		f.tokens++
		n := f.tokens
		f.mu.Unlock()
		json.NewEncoder(w).Encode(admin.TokenResponse{Token: fmt.Sprintf("%s/%s/%d", req.Namespace, req.ServiceAccount, n)})
	})
	life, lose := context.WithCancel(ctx)
	defer lose()
	// Ends all connections and the socket; run's caller starts it again.
	mux.HandleFunc("POST /test/lose", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		http.NewResponseController(w).Flush()
		lose()
	})
	mux.HandleFunc("POST /test/{what}", func(w http.ResponseWriter, r *http.Request) {
		var o admin.Object
		if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
			http.Error(w, err.Error(), 400)
			return
		}
		f.put(o, r.PathValue("what") == "delete")
	})
	srv := &http.Server{Handler: mux, BaseContext: func(net.Listener) context.Context { return ctx }}
	stop := context.AfterFunc(life, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(ln); life.Err() == nil {
		return err
	}
	return nil
}

func (f *fakeControl) put(o admin.Object, remove bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ref := admin.ObjectRef{Kind: o.Kind, Namespace: o.Namespace, Name: o.Name}
	if remove {
		delete(f.objects, ref)
	} else {
		f.objects[ref] = o
	}
	if o.Kind == "Service" && f.vips[o.Name+"."+o.Namespace] == "" {
		f.vips[o.Name+"."+o.Namespace] = fmt.Sprintf("10.96.0.%d", 10+len(f.vips))
	}
	f.save()
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fakeControl) watchObjects(w http.ResponseWriter, r *http.Request) {
	kinds := strings.Split(r.URL.Query().Get("kind"), ",")
	sent := map[admin.ObjectRef]string{}
	for first := true; ; first = false {
		f.mu.Lock()
		more := f.changed
		var events []admin.Event
		for ref, o := range f.objects {
			if slices.Contains(kinds, ref.Kind) && sent[ref] != string(o.Raw) {
				sent[ref] = string(o.Raw)
				events = append(events, admin.Event{Type: admin.EventPut, Object: &o})
			}
		}
		for ref := range sent {
			if _, ok := f.objects[ref]; !ok {
				delete(sent, ref)
				events = append(events, admin.Event{Type: admin.EventDelete, Object: &admin.Object{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name}})
			}
		}
		f.mu.Unlock()
		if first {
			events = append(events, admin.Event{Type: admin.EventSynced})
		}
		for _, e := range events {
			json.NewEncoder(w).Encode(e)
		}
		http.NewResponseController(w).Flush()
		select {
		case <-more:
		case <-r.Context().Done():
			return
		}
	}
}

func (f *fakeControl) watchNames(w http.ResponseWriter, r *http.Request) {
	for {
		f.mu.Lock()
		more := f.changed
		t := admin.NameTable{Names: map[string][]string{}, Domain: "cluster.local"}
		for name, vip := range f.vips {
			t.Names[name+".svc.cluster.local"] = []string{vip}
		}
		f.mu.Unlock()
		json.NewEncoder(w).Encode(t)
		http.NewResponseController(w).Flush()
		select {
		case <-more:
		case <-r.Context().Done():
			return
		}
	}
}

// fakeProxy is a sidecar that passes bytes on and says on stdout what it saw;
// a gateway answers HTTP on the listeners that it inherited.
func fakeProxy(args []string) int {
	flags := map[string][]string{}
	for i := 1; i+1 < len(args); i += 2 {
		flags[args[i]] = append(flags[args[i]], args[i+1])
	}
	get := func(name string) string { return strings.Join(flags["--"+name], " ") }
	token, err := os.ReadFile(get("token-file"))
	fmt.Printf("proxy %s %s ip=%s sa=%s token=%s err=%v labels=%v\n", args[0], get("id"), get("ip"), get("service-account"), token, err, flags["--label"])
	root, _ := os.ReadFile(get("ca-root"))
	kept := filepath.Join(get("state-dir"), "kept")
	before, _ := os.ReadFile(kept)
	err = os.WriteFile(kept, append(before, 'x'), 0o600)
	_, secret := os.Stat(filepath.Join(get("state-dir"), "../../ca/ca-key.pem"))
	others, _ := os.ReadDir(filepath.Join(get("state-dir"), ".."))
	fmt.Printf("files: root=%t starts=%d err=%v secret=%t folders=%d\n", bytes.Contains(root, []byte("CERTIFICATE")), len(before), err, secret == nil, len(others))
	if args[0] == "sidecar" {
		go relay(":15001", get("ip"), net.Dialer{Control: marked})
		go relay(":15006", get("ip"), net.Dialer{Control: marked, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 6)}})
	}
	for _, l := range flags["--inherit-listener"] {
		port, fd, _ := strings.Cut(l, "=")
		n, _ := strconv.Atoi(fd)
		ln, err := net.FileListener(os.NewFile(uintptr(n), "inherited"))
		if err != nil {
			fmt.Println("inherit", err)
			return 1
		}
		go http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, "gateway %s port %s", get("id"), port)
		}))
	}
	go http.ListenAndServe(":15021", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	go http.ListenAndServe("127.0.0.1:15000", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "admin of "+get("id")) }))
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-stop
	fmt.Println("drained")
	return 0
}

func marked(_, _ string, c syscall.RawConn) error {
	var err error
	c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, 0x539) })
	return err
}

// selfPort makes the fake proxy call its own pod, as a real one does when it
// picks that as a service's endpoint.
const selfPort = 9999

func relay(at, self string, d net.Dialer) {
	ln, err := net.Listen("tcp4", at)
	if err != nil {
		fmt.Println("relay", err)
		os.Exit(1)
	}
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			to, err := originalDst(c.(*net.TCPConn))
			fmt.Printf("relay %s from=%s to=%s err=%v\n", at, c.RemoteAddr(), to, err)
			dial := to.String()
			if to.Port() == selfPort {
				dial = net.JoinHostPort(self, "9080")
			}
			up, err := d.Dial("tcp4", dial)
			if err != nil {
				fmt.Printf("relay %s: %v\n", at, err)
				return
			}
			defer up.Close()
			go func() {
				io.Copy(up, c)
				up.(*net.TCPConn).CloseWrite()
			}()
			io.Copy(c, up)
		}()
	}
}

func originalDst(c *net.TCPConn) (netip.AddrPort, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, err
	}
	var out netip.AddrPort
	var serr error
	raw.Control(func(fd uintptr) {
		// struct sockaddr_in fits the 16 bytes of an IPv6 multicast request.
		var m *unix.IPv6Mreq
		m, serr = unix.GetsockoptIPv6Mreq(int(fd), unix.IPPROTO_IP, unix.SO_ORIGINAL_DST)
		if serr == nil {
			b := m.Multiaddr
			out = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), uint16(b[2])<<8|uint16(b[3]))
		}
	})
	return out, serr
}

// testApp is a program in a pod: serve PORT answers HTTP with facts about
// itself; crash ends with code 3; get URL prints what it gets; dial PATH
// connects to a Unix socket.
func testApp(args []string) int {
	switch args[0] {
	case "serve":
		host, _ := os.Hostname()
		mux := http.NewServeMux()
		mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s uid=%d from=%s version=%s", host, os.Getuid(), r.RemoteAddr, os.Getenv("VERSION"))
		})
		mux.HandleFunc("/env", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, strings.Join(os.Environ(), "\n")) })
		mux.HandleFunc("/crash", func(http.ResponseWriter, *http.Request) { os.Exit(3) })
		fmt.Println("serving on", args[1])
		fmt.Println(http.ListenAndServe(":"+args[1], mux))
		return 1
	case "dial":
		c, err := net.Dial("unix", args[1])
		if err != nil {
			fmt.Println(err)
			return 7
		}
		c.Close()
		return 0
	case "get":
		c := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := c.Get(args[1])
		if err != nil {
			fmt.Println(err)
			return 7
		}
		io.Copy(os.Stdout, resp.Body)
		return 0
	}
	return 2
}

// mesh is a running mesh under test.
type mesh struct {
	t       *testing.T
	dir     string
	ingress string
	cmd     *exec.Cmd
	client  *client.Client
	control *http.Client
	out     *output
	done    chan struct{}
}

type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// modes are the users that a mesh is tested as: root where we are root, and an
// ordinary user.
func modes(t *testing.T, f func(t *testing.T, uid int)) {
	h, err := netns.New()
	if err == nil {
		h.Close()
	}
	if os.Getuid() == 0 {
		if err != nil {
			t.Skipf("SKIPPED, NOT TESTED: root may not make network namespaces here: %v", err)
		}
		t.Run("as root", func(t *testing.T) { f(t, 0) })
		t.Run("as an ordinary user", func(t *testing.T) { f(t, 65534) })
		return
	}
	t.Run("as an ordinary user", func(t *testing.T) { f(t, os.Getuid()) })
}

// prepare makes a folder that uid may use, with the programs in it.
func prepare(t *testing.T, uid int) string {
	t.Helper()
	base, err := os.MkdirTemp("", "weft-local")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	bin := filepath.Join(base, "bin")
	os.Mkdir(bin, 0o755)
	if err := share(filepath.Join(bin, "weft")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"weft-proxy", "weft-control", "testapp"} {
		if err := os.Symlink("weft", filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	os.Chmod(base, 0o755)
	if err := os.Chown(base, uid, uid); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(base, "state")
}

// share makes the test binary available at path, for every user.
func share(path string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if os.Link(self, path) == nil && os.Chmod(path, 0o755) == nil {
		return nil
	}
	b, err := os.ReadFile(self)
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o755)
}

func start(t *testing.T, uid int, dir string, more ...string) *mesh {
	t.Helper()
	ingress := freePort(t)
	m := &mesh{t: t, dir: dir, ingress: ingress, client: client.New(dir), out: &output{}, done: make(chan struct{})}
	m.control = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(dir, admin.SocketControl))
	}}}
	m.cmd = exec.Command(filepath.Join(filepath.Dir(dir), "bin", "weft"), append([]string{"mesh", dir, ingress}, more...)...)
	m.cmd.Stdout, m.cmd.Stderr = m.out, m.out
	m.cmd.WaitDelay = time.Second
	if uid != os.Getuid() {
		m.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
		m.cmd.Env = append(os.Environ(), "HOME="+filepath.Dir(dir))
	}
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		m.cmd.Wait()
		close(m.done)
	}()
	t.Cleanup(func() {
		m.cmd.Process.Kill()
		<-m.done
		if strings.Contains(m.out.String(), "DATA RACE") {
			t.Error("the mesh has a data race")
		}
		if t.Failed() {
			t.Logf("output of the mesh:\n%s", m.out)
		}
	})
	m.eventually("the runtime answers", func() error {
		if strings.Contains(m.out.String(), "two ways out") {
			t.Skipf("SKIPPED, NOT TESTED: %s", m.out)
		}
		select {
		case <-m.done:
			t.Fatalf("the mesh ended:\n%s", m.out)
		default:
		}
		_, err := m.client.Pods(t.Context())
		return err
	})
	return m
}

// patience is how long what has to happen may take: it is about that it does, on a machine however busy.
const patience = time.Minute

// freePort is an address where nobody listens. It is outside the range from which the system gives outgoing connections
// theirs, so that none has it before the mesh does, and outside those of the other packages' tests.
func freePort(t *testing.T) string {
	t.Helper()
	for range 1000 {
		address := fmt.Sprintf("127.0.0.1:%d", 14000+rand.IntN(4000))
		if ln, err := net.Listen("tcp", address); err == nil {
			ln.Close()
			return address
		}
	}
	t.Fatal("no free port from 14000 to 17999")
	return ""
}

// eventually polls a real machine: these tests run real processes.
func (m *mesh) eventually(what string, f func() error) {
	m.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("%s: not within %s: %v", what, patience, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (m *mesh) put(kind, namespace, name, raw string) {
	m.t.Helper()
	m.post("put", admin.Object{Kind: kind, Namespace: namespace, Name: name, Raw: json.RawMessage(raw)})
}

func (m *mesh) post(what string, o admin.Object) {
	m.t.Helper()
	b, _ := json.Marshal(o)
	m.eventually("the fake control plane takes "+o.Name, func() error {
		resp, err := m.control.Post("http://control/test/"+what, "application/json", bytes.NewReader(b))
		if err == nil {
			resp.Body.Close()
		}
		return err
	})
}

// deploy stores a Deployment; spec and template fields come as JSON members.
func (m *mesh) deploy(namespace, name string, replicas int, labels, podSpec string) {
	m.t.Helper()
	m.put("Deployment", namespace, name, fmt.Sprintf(`{"metadata":{"name":%q},"spec":{"replicas":%d,"selector":{"matchLabels":{"app":%q}},
		"template":{"metadata":{"labels":{"app":%q%s}},"spec":%s}}}`, name, replicas, name, name, labels, podSpec))
}

const serveSpec = `{"serviceAccountName":"web-sa","containers":[{"name":"app","command":["testapp","serve","9080"],
	"env":[{"name":"VERSION","value":"v1"},{"name":"WHERE","valueFrom":{"fieldRef":{"fieldPath":"status.podIP"}}}],
	"ports":[{"containerPort":9080}],"readinessProbe":{"httpGet":{"path":"/","port":9080}}}]}`

func (m *mesh) service(namespace, name string, port, target int) {
	m.t.Helper()
	m.put("Service", namespace, name, fmt.Sprintf(`{"spec":{"selector":{"app":%q},"ports":[{"port":%d,"targetPort":%d}]}}`, name, port, target))
}

// pods returns a Deployment's pods.
func (m *mesh) pods(deployment string) []admin.Pod {
	m.t.Helper()
	all, err := m.client.Pods(m.t.Context())
	if err != nil {
		m.t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(p admin.Pod) bool { return p.Deployment != deployment })
}

// ready waits until a Deployment has exactly n pods and all are ready.
func (m *mesh) ready(deployment string, n int) []admin.Pod {
	m.t.Helper()
	var pods []admin.Pod
	m.eventually(fmt.Sprintf("%d ready pods of %s", n, deployment), func() error {
		pods = m.pods(deployment)
		for _, p := range pods {
			if !p.Ready {
				return fmt.Errorf("%s: %s %s", p.Name, p.Phase, p.Message)
			}
		}
		if len(pods) != n {
			return fmt.Errorf("%d pods", len(pods))
		}
		return nil
	})
	return pods
}

// exec runs a command in a pod and returns what it printed.
func (m *mesh) exec(namespace, pod string, command ...string) (string, int) {
	m.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		m.t.Fatal(err)
	}
	defer r.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		m.t.Fatal(err)
	}
	defer null.Close()
	var out []byte
	read := make(chan struct{})
	go func() {
		out, _ = io.ReadAll(r)
		close(read)
	}()
	code, err := m.client.Exec(m.t.Context(), admin.ExecRequest{Namespace: namespace, Pod: pod, Command: command}, null, w, w)
	w.Close()
	<-read
	if err != nil {
		return err.Error(), code
	}
	return string(out), code
}

// get makes an HTTP request from inside a pod.
func (m *mesh) get(namespace, pod, url string) (string, error) {
	out, code := m.exec(namespace, pod, "testapp", "get", url)
	if code != 0 {
		return out, fmt.Errorf("GET %s: exit code %d: %s", url, code, out)
	}
	return out, nil
}

func (m *mesh) logs(namespace, pod, container string) string {
	m.t.Helper()
	var b bytes.Buffer
	if err := m.client.Logs(m.t.Context(), client.LogOptions{Namespace: namespace, Pod: pod, Container: container, Tail: client.AllLines}, &b); err != nil {
		m.t.Fatal(err)
	}
	return b.String()
}

// logged waits until a pod's sidecar has said what it is to say: its output is on its way for a moment.
func (m *mesh) logged(p admin.Pod, ok func(logs string) bool) {
	m.t.Helper()
	m.eventually("the log of "+p.Name+"'s sidecar", func() error {
		if logs := m.logs(p.Namespace, p.Name, "istio-proxy"); !ok(logs) {
			return errors.New(logs)
		}
		return nil
	})
}
