package local

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestDiagnose(t *testing.T) {
	tests := []struct {
		name  string
		err   error
		root  bool
		files map[string]string
		want  []string
	}{
		{"Debian's switch", syscall.EPERM, false, map[string]string{"/proc/sys/kernel/unprivileged_userns_clone": "0\n"},
			[]string{"unprivileged_userns_clone is 0", "sudo sysctl -w kernel.unprivileged_userns_clone=1", "sudo weft", "two ways out"}},
		{"no user namespaces at all", syscall.ENOSPC, false, map[string]string{"/proc/sys/user/max_user_namespaces": "0\n"},
			[]string{"turned off", "sysctl -w user.max_user_namespaces=", "sudo weft"}},
		{"AppArmor", fmt.Errorf("fork/exec: %w", syscall.EACCES), false, map[string]string{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"},
			[]string{"AppArmor", "kernel.apparmor_restrict_unprivileged_userns=0", "sudo weft"}},
		{"the limit is reached", syscall.ENOSPC, false, map[string]string{"/proc/sys/user/max_user_namespaces": "4"}, []string{"limit", "max_user_namespaces="}},
		{"an unknown reason", syscall.EPERM, false, nil, []string{"allow user namespaces", "sudo weft"}},
		{"root in a container", syscall.EPERM, true, nil, []string{"CAP_SYS_ADMIN"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := diagnose(tt.err, tt.root, func(p string) string { return tt.files[p] })
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
			if tt.root == strings.Contains(err.Error(), "sudo") {
				t.Errorf("advice for the wrong user: %v", err)
			}
			if !errors.Is(err, tt.err) {
				t.Error("the cause is lost")
			}
		})
	}
	t.Run("other errors stay what they are", func(t *testing.T) {
		var forbidden *ForbiddenError
		if err := diagnose(syscall.ENOMEM, false, func(string) string { return "0" }); errors.As(err, &forbidden) || !errors.Is(err, syscall.ENOMEM) {
			t.Errorf("got %v", err)
		}
	})
}

func TestSettings(t *testing.T) {
	good := func() Settings {
		return Settings{Inside: &Inside{}, StateDir: t.TempDir(), ProxyPath: "/bin/weft-proxy"}
	}
	tests := []struct {
		name   string
		change func(*Settings)
		want   string
	}{
		{"good settings", func(*Settings) {}, ""},
		{"not entered", func(s *Settings) { s.Inside = nil }, "call Enter first"},
		{"a relative state directory", func(s *Settings) { s.StateDir = "state" }, "absolute"},
		{"a state directory too long for sockets", func(s *Settings) { s.StateDir = "/" + strings.Repeat("d", 100) }, "at most 107 bytes"},
		{"no proxy", func(s *Settings) { s.ProxyPath = "" }, "proxy program"},
		{"a state directory that is the programs' folder", func(s *Settings) { s.StateDir = "/bin" }, "is the folder of weft's programs"},
		{"a host port without listener", func(s *Settings) { s.HostPorts = map[uint16]string{80: "ingress"} }, `no listener "ingress"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := good()
			tt.change(&s)
			_, err := New(s)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestBaseEnvKeepsNoSecrets(t *testing.T) {
	s := Settings{ProgramDirs: []string{"/w/bin", "/w/bin/samples"}, Environ: []string{"PATH=/bin", "HOME=/home/u", "AWS_SECRET=x", "LANG=C", "TMPDIR=/t", "PATHS=no"}}
	got := s.baseEnv()
	slices.Sort(got)
	if want := []string{"HOME=/home/u", "LANG=C", "PATH=/w/bin:/w/bin/samples:/bin", "TMPDIR=/t"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := (Settings{}).baseEnv(); !slices.Equal(got, []string{"PATH=" + defaultPath}) {
		t.Errorf("without an environment: %q", got)
	}
}

func TestLock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if _, running := Running(dir); running {
		t.Error("a mesh runs before there is a folder")
	}
	lock, err := takeLock(dir)
	if err != nil {
		t.Fatal(err)
	}
	var busy *RunningError
	if _, err := takeLock(dir); !errors.As(err, &busy) || busy.PID == 0 {
		t.Errorf("a second lock: %v", err)
	}
	lock.Close()
	if _, running := Running(dir); running {
		t.Error("still running after the lock was let go")
	}
}
