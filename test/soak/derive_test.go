package soak

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
)

// want is what a response must look like, derived from the request alone.
type want struct {
	id   string
	size int    // of the body
	sum  string // of the request's body
}

// mark is what the response carries in x-soak.
func (w want) mark() string {
	h := sha256.Sum256(fmt.Appendf(nil, "%s|%d|%s", w.id, w.size, w.sum))
	return hex.EncodeToString(h[:16])
}

// body is a reader of the response's body.
func (w want) body() io.Reader {
	h := sha256.Sum256([]byte("body|" + w.mark()))
	return io.LimitReader(rand.NewChaCha8(h), int64(w.size))
}

// random is what a client sends: n bytes derived from its ID.
func random(id string, n int) []byte {
	h := sha256.Sum256([]byte("sent|" + id))
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(h).Read(b)
	return b
}

func sumOf(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:8])
}

// errWrong is a byte that no fault explains.
type errWrong struct{ what string }

func (e *errWrong) Error() string { return "WRONG: " + e.what }

func wrongf(format string, args ...any) error { return &errWrong{fmt.Sprintf(format, args...)} }

func isWrong(err error) bool {
	var w *errWrong
	return errors.As(err, &w)
}

// errShort: it ended without an error before everything had come. Where a protocol has lengths, that is wrong.
var errShort = errors.New("it ends cleanly too early")

// whole makes errShort wrong.
func whole(n int, err error) error {
	if errors.Is(err, errShort) {
		return wrongf("%v", err)
	}
	return err
}

// compare reads r to its end and compares what comes with ref: errWrong if it differs or
// goes on, errShort if it ends before, else the error it ends with.
func compare(r, ref io.Reader) (n int, err error) {
	a, b := make([]byte, 16<<10), make([]byte, 16<<10)
	for {
		k, err := r.Read(a)
		if k > 0 {
			if _, e := io.ReadFull(ref, b[:k]); e != nil {
				return n, wrongf("more bytes came than belong to it, from byte %d on", n)
			}
			if !bytes.Equal(a[:k], b[:k]) {
				i := 0
				for a[i] == b[i] {
					i++
				}
				return n, wrongf("byte %d is %#x, want %#x: %.60q", n+i, a[i], b[i], a[i:k])
			}
			n += k
		}
		if err == io.EOF {
			if k, _ := ref.Read(b[:1]); k > 0 {
				return n, fmt.Errorf("%w: after %d bytes", errShort, n)
			}
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// xorReader changes each byte in a way that belongs to one connection.
type xorReader struct {
	r   io.Reader
	key byte
}

func (x *xorReader) Read(p []byte) (int, error) {
	n, err := x.r.Read(p)
	for i := range p[:n] {
		p[i] ^= x.key
	}
	return n, err
}

// keyOf is the key of a connection's echo; never zero.
func keyOf(id string) byte {
	h := sha256.Sum256([]byte("key|" + id))
	return h[0] | 1
}
