package file

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/model"
)

// A pod's manifest can go at any moment of a scan.
func TestFilesThatComeAndGoAreNeverUnreadable(t *testing.T) {
	dir := t.TempDir()
	var problems []admin.Diagnostic
	s := New(Settings{Paths: []string{dir}, OnProblems: func(ds []admin.Diagnostic) { problems = append(problems, ds...) }})
	st := newState(s)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ { // a pod's name never comes again
			name := filepath.Join(dir, fmt.Sprintf("pod-%d.yaml", i))
			select {
			case <-stop:
				return
			default:
			}
			_ = os.WriteFile(name, []byte("# empty\n"), 0o600)
			_ = os.Remove(name)
		}
	}()
	for range 3000 {
		st.scan(discard{}, false)
	}
	close(stop)
	<-done
	if len(problems) > 0 {
		t.Errorf("%d problems, the first: %+v", len(problems), problems[0])
	}
}

type discard struct{}

func (discard) Put(...convert.Object) {}
func (discard) Delete(...model.Key)   {}
func (discard) Synced()               {}
