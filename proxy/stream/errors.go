package stream

import "errors"

// Side tells whose failure it was.
type Side uint8

const (
	Downstream Side = iota + 1
	Upstream
	Ours
)

// Error is a failure on the data path. It says whose it was, whether nothing
// had reached the application yet (a retry cannot repeat work), and which
// response flag and details derive from it.
type Error struct {
	Side    Side
	Op      string // "connect", "write head", "read head", …
	Flag    Flags
	Details string // response code details, as Envoy words them
	Timeout bool
	Unsent  bool   // no byte of the request can have been processed: refused stream, connect failure, stale connection
	Refused bool   // REFUSED_STREAM
	Reset   bool   // reset or closed by the peer
	Status  int    // for downstream protocol errors: the status to answer with; 0: just close
	Text    string // body of that answer; empty: none
	Err     error
}

func (e *Error) Error() string {
	s := e.Op
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// AsError finds the *Error in err's chain.
func AsError(err error) (*Error, bool) {
	var e *Error
	ok := errors.As(err, &e)
	return e, ok
}
