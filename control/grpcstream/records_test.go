package grpcstream

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

func TestRecordsAreFollowedHoweverTheyCome(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var all []byte
	ends := map[int]bool{0: true}
	for _, n := range []int{1, 0, 17, 512, 255, 256, 16 << 10, 0, 3} {
		all = append(append(all, 23, 3, 3, byte(n>>8), byte(n)), bytes.Repeat([]byte{23}, n)...)
		ends[len(all)] = true
	}
	for range 200 {
		var r records
		for at, ended := 0, 0; at < len(all); {
			n := min(1+rng.IntN(1+rng.IntN(600)), len(all)-at)
			r.whole = 0
			r.came(all[at : at+n])
			for i := at + 1; i <= at+n; i++ {
				if ends[i] {
					ended++
				}
			}
			at += n
			if want := ended == 1 && ends[at]; r.single() != want {
				t.Fatalf("at %d after %d bytes: single %v, want %v", at, n, r.single(), want)
			}
			ended = 0
		}
	}
}
