package server

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestTheTableOfDescriptorsIsLargeFromTheBeginning reads what the kernel says its size is.
func TestTheTableOfDescriptorsIsLargeFromTheBeginning(t *testing.T) {
	reserveDescriptors()
	want := min(reservedDescriptors, descriptorLimit())
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var have int
		if n, _ := fmt.Sscanf(line, "FDSize: %d", &have); n == 1 {
			if have < want {
				t.Errorf("room for %d descriptors, want %d", have, want)
			}
			return
		}
	}
	t.Error("the kernel does not say how large the table is")
}
