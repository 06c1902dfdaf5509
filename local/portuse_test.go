package local

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestAPortInUseNamesWhoHasIt(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		ln, err := net.Listen("tcp", at)
		if err != nil {
			t.Logf("no %s here: %v", at, err)
			continue
		}
		defer ln.Close()
		_, _, err = openListeners(map[string]string{"ingress": ln.Addr().String()})
		var pe *PortError
		if !errors.As(err, &pe) || !pe.InUse() {
			t.Fatalf("%s: error %v", at, err)
		}
		if want := fmt.Sprintf("(process %d) has it", os.Getpid()); !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "ingress port "+ln.Addr().String()) {
			t.Errorf("error %q, want %q", err, want)
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%v does not say so", err)
		}
	}
}

func TestAPortThatIsNotOursIsNobodysFault(t *testing.T) {
	_, _, err := openListeners(map[string]string{"console": "192.0.2.1:8090"})
	var pe *PortError
	if !errors.As(err, &pe) || pe.InUse() || pe.Owner != "" || !strings.Contains(err.Error(), "192.0.2.1:8090") {
		t.Errorf("error %v", err)
	}
	if got := portOwner(t.TempDir(), 80); got != "" {
		t.Errorf("owner %q without /proc", got)
	}
}

// The processes of a mesh that was killed a moment ago still have its ports.
func TestAPortThatIsBeingGivenUpIsWaitedFor(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(20*time.Millisecond, func() { ln.Close() }).Stop()
	next, err := openPort("ingress", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	next.Close()
}
