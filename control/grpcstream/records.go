package grpcstream

// records follows the records of TLS in what comes (RFC 8446 section 5.1), to know when crypto/tls has none left.
type records struct {
	whole int  // ended since this was last set to zero
	left  int  // bytes of the last one that did not come yet
	size  int  // of the next one, as far as its head came
	head  byte // how much of its head that is
}

// recordHead is type, version and length.
const recordHead = 5

func (r *records) came(b []byte) {
	for len(b) > 0 {
		if r.left == 0 {
			r.head++
			r.size = r.size<<8 | int(b[0])
			b = b[1:]
			if r.head < recordHead {
				continue
			}
			r.left, r.head, r.size = r.size&0xffff, 0, 0
		} else {
			n := min(r.left, len(b))
			r.left, b = r.left-n, b[n:]
		}
		if r.left == 0 {
			r.whole++
		}
	}
}

// single tells that one record ended, and that nothing of another came.
func (r *records) single() bool { return r.whole == 1 && r.left == 0 && r.head == 0 }
