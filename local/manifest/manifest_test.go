package manifest

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft.mesh/weft/api/admin"
)

var update = flag.Bool("update", false, "rewrite golden files")

func sample() Pod {
	return Pod{Namespace: "default", Name: "reviews-v1-abc-xyz", UID: "u-1", Deployment: "reviews-v1", ServiceAccount: "bookinfo-reviews",
		Labels: map[string]string{"app": "reviews", "version": "v1"}, Annotations: map[string]string{"a": "b"}, IP: "10.97.0.5", NodeIP: "10.97.0.1",
		Phase: admin.PodRunning, Ready: true, Created: time.Unix(1000, 0).UTC(), ReadySince: time.Unix(1002, 0).UTC(), Grace: 30 * time.Second,
		Containers: []Container{{Name: "reviews", Ready: true, Running: true, Ports: []Port{{Name: "http", Port: 9080}, {Port: 53, UDP: true}}}, {Name: "istio-proxy", Ready: true, Running: true}}}
}

func TestEncode(t *testing.T) {
	ending := sample()
	ending.Ready, ending.Phase, ending.Deleted = false, admin.PodStopping, time.Unix(1009, 0).UTC()
	for name, p := range map[string]Pod{"ready": sample(), "terminating": ending} {
		t.Run(name, func(t *testing.T) {
			got, err := Encode(p)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", name+".yaml")
			if *update {
				os.MkdirAll("testdata", 0o755)
				os.WriteFile(path, got, 0o644)
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), string(got)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestFolder(t *testing.T) {
	f := Folder{Dir: filepath.Join(t.TempDir(), "pods")}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(f.Clear())
	must(f.Publish(sample()))
	path := filepath.Join(f.Dir, "default_reviews-v1-abc-xyz.yaml")
	first, err := os.Stat(path)
	must(err)
	if first.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", first.Mode())
	}
	must(f.Publish(sample()))
	if second, _ := os.Stat(path); !os.SameFile(first, second) {
		t.Error("an unchanged manifest was written again: the control plane would look at it")
	}
	changed := sample()
	changed.Ready = false
	must(f.Publish(changed))
	if third, _ := os.Stat(path); os.SameFile(first, third) {
		t.Error("a changed manifest was written in place: a reader may see half of it")
	}
	os.WriteFile(filepath.Join(f.Dir, tempPrefix+"x.yaml.tmp"), nil, 0o600)
	if d := cmp.Diff([]string{"default_reviews-v1-abc-xyz.yaml"}, f.Names()); d != "" {
		t.Error(d)
	}
	must(f.Clear())
	if left, _ := os.ReadDir(f.Dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	must(f.Withdraw("default", "gone"))
}
