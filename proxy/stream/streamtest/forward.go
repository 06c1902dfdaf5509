package streamtest

import (
	"errors"
	"io"
	"sync"
	"time"

	"weft.mesh/weft/proxy/stream"
)

// Forward copies one exchange from a server to a client and back, as the proxy does, and
// closes neither: heads, informational heads, bodies in both directions at once, trailers,
// upgrades. It cuts s if the upstream fails.
func Forward(s stream.Server, c stream.Client) error {
	r := s.Request()
	if err := c.WriteHead(r, !s.HasBody()); err != nil {
		e, ok := stream.AsError(err)
		if !ok || e.Side != stream.Ours {
			s.Abort()
		}
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	if s.HasBody() {
		wg.Go(func() {
			if err := forwardBody(s, c, s.RequestTrailers); err != nil && !errors.Is(err, errSend) {
				c.SetDeadline(longAgo) // the client has gone: end the other direction too
			}
		})
	}
	if err := forwardResponse(s, c); err != nil {
		s.Abort()
		return err
	}
	c.SetDeadline(longAgo) // an upstream that has answered need not take the rest of the body
	return nil
}

func forwardResponse(s stream.Server, c stream.Client) error {
	for {
		resp, err := c.ReadHead()
		if err != nil {
			return err
		}
		final := resp.Status >= 200 || resp.Status == 101
		// Flushed at once, so that streams start before their first byte.
		if err := errors.Join(s.WriteHead(resp, false), s.Flush()); err != nil {
			return err
		}
		if final {
			return forwardBody(c, s, c.Trailers)
		}
	}
}

type from interface{ ReadBody() ([]byte, error) }

type to interface {
	WriteBody(p []byte, end bool) error
	WriteTrailers(t *stream.Fields) error
	Flush() error
}

// errSend marks a failure of the receiving side.
var (
	errSend = errors.New("send")
	longAgo = time.Unix(1, 0)
)

func forwardBody(src from, dst to, trailers func() *stream.Fields) error {
	for {
		p, err := src.ReadBody()
		if errors.Is(err, io.EOF) {
			if t := trailers(); t != nil {
				err = dst.WriteTrailers(t)
			} else {
				err = dst.WriteBody(nil, true)
			}
			if err != nil {
				return errors.Join(errSend, err)
			}
			return nil
		}
		if err != nil {
			return err
		}
		err = dst.WriteBody(p, false)
		if r, ok := src.(stream.Readier); err == nil && (!ok || !r.ReadReady()) {
			err = dst.Flush()
		}
		if err != nil {
			return errors.Join(errSend, err)
		}
	}
}
