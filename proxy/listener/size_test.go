package listener

import (
	"testing"
	"unsafe"
)

// See http1's TestWhatGoesLeavesNoHolesInWhatStays.
func TestWhatIsLeftOfASleepersConnectionHasASizeClassOfItsOwn(t *testing.T) {
	if n := unsafe.Sizeof(conn{}); n <= 352 || n > 384 {
		t.Errorf("conn has %d bytes: http1's part must not be of the same size class", n)
	}
}
