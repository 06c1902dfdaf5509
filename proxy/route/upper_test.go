package route

import "testing"

func TestUpperCaseIsFoundAnywhere(t *testing.T) {
	for n := range 20 {
		b := make([]byte, n)
		for at := range n {
			for c := range 256 {
				for i := range b {
					b[i] = "a@[`z{-.:09"[i%11]
				}
				b[at] = byte(c)
				if 'A' <= c && c <= 'Z' && !hasUpper(b) {
					t.Fatalf("%q", b)
				}
				if c < 0x80 && (c < 'A' || c > 'Z') && hasUpper(b) {
					t.Fatalf("%q has no letter in upper case", b)
				}
			}
		}
	}
}
