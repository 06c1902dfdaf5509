package sandbox

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"weft.mesh/weft/node/netns"
)

func TestNsswitchKeepsAllButHosts(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"a plain file", "passwd: files\nhosts: files dns\n", "passwd: files\nhosts: files dns\n"},
		{"systemd-resolved and mDNS", "passwd: files systemd\n  hosts:   mymachines resolve [!UNAVAIL=return] mdns4_minimal [NOTFOUND=return] files dns # c\nnetworks: files\n",
			"passwd: files systemd\nhosts: files dns\nnetworks: files\n"},
		{"no file", "", "hosts: files dns\n"},
		{"a comment is no line", "# hosts: nis\n", "# hosts: nis\nhosts: files dns\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := nsswitch([]byte(tt.in)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func config(t *testing.T, etc string) Config {
	return Config{Dir: filepath.Join(t.TempDir(), "sb"), Hostname: "web-1", Namespace: "shop", Domain: "cluster.local",
		IP: netip.MustParseAddr("10.97.0.5"), DNS: netip.MustParseAddr("10.97.0.1"), EtcDir: etc}
}

func newSandbox(t *testing.T, c Config) *Sandbox {
	t.Helper()
	s, err := New(c)
	if netns.Unsupported(err) {
		t.Skipf("SKIPPED, NOT TESTED: namespaces need CAP_SYS_ADMIN: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// inside runs a shell command in the sandbox.
func inside(t *testing.T, s *Sandbox, command string) string {
	t.Helper()
	var out []byte
	if err := s.Run(func() error {
		var err error
		out, err = exec.Command("sh", "-c", command).CombinedOutput()
		return err
	}); err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
	return string(out)
}

const wantResolv = "nameserver 10.97.0.1\nsearch shop.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5 timeout:2 attempts:5\n"

// Machines keep their files in several ways; a pod sees its own in each.
func TestThePodHasItsOwnFiles(t *testing.T) {
	tests := []struct {
		name string
		make func(etc, elsewhere string)
	}{
		{"plain files", func(etc, _ string) {
			os.WriteFile(filepath.Join(etc, "resolv.conf"), []byte("nameserver 9.9.9.9\n"), 0o644)
		}},
		{"a symlink to another folder", func(etc, elsewhere string) {
			os.WriteFile(filepath.Join(elsewhere, "stub.conf"), []byte("nameserver 127.0.0.53\n"), 0o644)
			os.Symlink(filepath.Join(elsewhere, "stub.conf"), filepath.Join(etc, "resolv.conf"))
		}},
		{"a symlink to nothing", func(etc, elsewhere string) {
			os.Symlink(filepath.Join(elsewhere, "gone"), filepath.Join(etc, "resolv.conf"))
		}},
		{"no file at all", func(string, string) {}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			etc, elsewhere := t.TempDir(), t.TempDir()
			for _, name := range []string{"hosts", "hostname", "nsswitch.conf", "passwd"} {
				os.WriteFile(filepath.Join(etc, name), []byte("machine's\n"), 0o644)
			}
			os.Symlink("passwd", filepath.Join(etc, "link"))
			tt.make(etc, elsewhere)
			s := newSandbox(t, config(t, etc))
			if got := inside(t, s, "cat "+etc+"/resolv.conf"); got != wantResolv {
				t.Errorf("resolv.conf: %q", got)
			}
			if got := inside(t, s, "cat "+etc+"/hostname; hostname"); got != "web-1\nweb-1\n" {
				t.Errorf("host name: %q", got)
			}
			if got := inside(t, s, "cat "+etc+"/hosts"); !strings.Contains(got, "10.97.0.5\tweb-1") || !strings.Contains(got, "127.0.0.1\tlocalhost") {
				t.Errorf("hosts: %q", got)
			}
			if got := inside(t, s, "cat "+etc+"/passwd "+etc+"/link"); got != "machine's\nmachine's\n" {
				t.Errorf("other files: %q", got)
			}
			if b, _ := os.ReadFile(filepath.Join(etc, "hosts")); string(b) != "machine's\n" {
				t.Errorf("the machine's own file is now %q", b)
			}
			s.Close()
			if b, err := os.ReadFile(filepath.Join(etc, "passwd")); string(b) != "machine's\n" {
				t.Errorf("after the end: %q, %v", b, err)
			}
		})
	}
}

func TestProgramsMayBindLowPorts(t *testing.T) {
	s := newSandbox(t, config(t, t.TempDir()))
	if got := inside(t, s, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start"); got != "0\n" {
		t.Errorf("ip_unprivileged_port_start is %q", got)
	}
}

func TestKillAllFindsWhatLeftItsGroup(t *testing.T) {
	s := newSandbox(t, config(t, t.TempDir()))
	var cmd *exec.Cmd
	if err := s.Run(func() error {
		cmd = exec.Command("setsid", "sleep", "1000")
		return cmd.Start()
	}); err != nil {
		t.Fatal(err)
	}
	if n := s.KillAll(); n != 1 {
		t.Errorf("%d processes killed, want 1", n)
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("it ended with %v", err)
	}
}

func TestCloseRemovesTheFolder(t *testing.T) {
	c := config(t, t.TempDir())
	s := newSandbox(t, c)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(c.Dir); err == nil {
		t.Error("the folder is left")
	}
}

func TestAHiddenFolderShowsWhatIsKeptOnly(t *testing.T) {
	hidden := t.TempDir()
	for _, name := range []string{"secret/key", "bin/tool", "proxies/web-1/token", "proxies/web-2/token"} {
		path := filepath.Join(hidden, name)
		os.MkdirAll(filepath.Dir(path), 0o755)
		os.WriteFile(path, []byte(name+"\n"), 0o644)
	}
	c := config(t, t.TempDir())
	c.Dir, c.Hide = filepath.Join(hidden, "sandbox", "web-1"), hidden
	c.Keep = []string{filepath.Join(hidden, "bin"), filepath.Join(hidden, "no-such-folder"), hidden, "/usr/bin"}
	c.Private = []string{filepath.Join(hidden, "proxies", "web-1")}
	for _, name := range []string{"hosts", "hostname", "nsswitch.conf"} { // without resolv.conf: the folder is shadowed
		os.WriteFile(filepath.Join(c.EtcDir, name), nil, 0o644)
	}
	os.WriteFile(filepath.Join(c.EtcDir, "passwd"), []byte("machine's\n"), 0o644)
	s := newSandbox(t, c)
	list := "cd " + hidden + " && find . -type f | grep -v ^./sandbox/web-1/ | sort"
	if got := inside(t, s, list); got != "./bin/tool\n" {
		t.Errorf("programs see %q", got)
	}
	if got := inside(t, s, "cat "+c.EtcDir+"/resolv.conf "+c.EtcDir+"/passwd"); got != wantResolv+"machine's\n" {
		t.Errorf("the pod's files: %q", got)
	}
	var out []byte
	if err := s.RunSidecar(func() (err error) {
		out, err = exec.Command("sh", "-c", list+"; echo new > proxies/web-1/state").CombinedOutput()
		return err
	}); err != nil || string(out) != "./bin/tool\n./proxies/web-1/token\n" {
		t.Errorf("the sidecar sees %q, %v", out, err)
	}
	if b, err := os.ReadFile(filepath.Join(c.Private[0], "state")); string(b) != "new\n" {
		t.Errorf("what the sidecar wrote is %q, %v", b, err)
	}
}
