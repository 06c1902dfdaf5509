package server

import (
	"os"
	"path/filepath"
	"testing"
)

func TestTheMemoryLimitOfTheCgroup(t *testing.T) {
	const none = "9223372036854771712\n" // PAGE_COUNTER_MAX of v1
	for _, tc := range []struct {
		name, self string
		files      map[string]string
		want       uint64
		ok         bool
	}{
		{"version 2", "0::/app\n", map[string]string{"app/memory.max": "67108864\n"}, 64 << 20, true},
		{"version 2, no limit", "0::/app\n", map[string]string{"app/memory.max": "max\n"}, 0, false},
		{"version 2, a limit of the group above", "0::/pod/app\n", map[string]string{"pod/app/memory.max": "max\n", "pod/memory.max": "1000000\n"}, 1000000, true},
		{"version 2, the lesser of two", "0::/pod/app\n", map[string]string{"pod/app/memory.max": "3000000\n", "pod/memory.max": "2000000\n"}, 2000000, true},
		{"version 2, in a namespace", "0::/\n", map[string]string{"memory.max": "5000000\n"}, 5000000, true},
		{"version 2, a path of the host seen from inside", "0::/../../other\n", map[string]string{"memory.max": "5000000\n"}, 5000000, true},
		{"version 1", "12:cpu,cpuacct:/a\n9:memory:/pod/app\n", map[string]string{"memory/pod/app/memory.limit_in_bytes": "134217728\n"}, 128 << 20, true},
		{"version 1, no limit", "9:memory:/app\n", map[string]string{"memory/app/memory.limit_in_bytes": none}, 0, false},
		{"version 1, a limit above", "9:memory:/pod/app\n", map[string]string{"memory/pod/app/memory.limit_in_bytes": none, "memory/pod/memory.limit_in_bytes": "7000000\n"}, 7000000, true},
		{"version 1, in a container", "9:memory:/docker/0123\n", map[string]string{"memory/memory.limit_in_bytes": "8000000\n"}, 8000000, true},
		{"both mounted, the memory is version 1's", "9:memory:/app\n0::/app\n", map[string]string{"memory/app/memory.limit_in_bytes": "9000000\n"}, 9000000, true},
		{"nothing of the kind", "1:name=systemd:/\n", nil, 0, false},
		{"not a file of this format", "memory\n::::\n", nil, 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			self := filepath.Join(dir, "self")
			if err := os.WriteFile(self, []byte(tc.self), 0o600); err != nil {
				t.Fatal(err)
			}
			for name, text := range tc.files {
				p := filepath.Join(dir, "root", name)
				if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, ok := cgroupMemory(self, filepath.Join(dir, "root"))
			if ok != tc.ok || ok && got != tc.want {
				t.Errorf("limit %d, %t; want %d, %t", got, ok, tc.want, tc.ok)
			}
		})
	}
	if _, ok := cgroupMemory("/does/not/exist", "/"); ok {
		t.Error("a limit without cgroups")
	}
}
