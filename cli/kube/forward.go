package kube

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
)

// maxForwardError bounds what is read of why a forward failed.
const maxForwardError = 4 << 10

// Dial opens a stream to a port of a pod's loopback address, through the API
// server: it takes the right to create pods/portforward.
func (c *Cluster) Dial(ctx context.Context, namespace, pod string, port int) (net.Conn, error) {
	what := fmt.Sprintf("pods/portforward of %s/%s", namespace, pod)
	conn, err := c.upgrade(ctx, namespace, pod)
	if err != nil {
		return nil, c.Explain("create", what, err)
	}
	s, err := openStream(conn, port)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("%s: port %d: %w", what, port, err)
	}
	return s, nil
}

// upgrade opens the connection that streams run on: over WebSockets where the
// API server has them, else SPDY.
func (c *Cluster) upgrade(ctx context.Context, namespace, pod string) (httpstream.Connection, error) {
	r, err := c.raw()
	if err != nil {
		return nil, err
	}
	u := r.Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("portforward").URL()
	ws, err := portforward.NewSPDYOverWebsocketDialer(u, c.Config)
	if err != nil {
		return nil, err
	}
	transport, upgrader, err := spdy.RoundTripperFor(c.Config)
	if err != nil {
		return nil, err
	}
	dialer := portforward.NewFallbackDialer(ws, spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, u), func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	type result struct {
		conn httpstream.Connection
		err  error
	}
	done := make(chan result, 1)
	go func() {
		conn, _, err := dialer.Dial(portforward.PortForwardProtocolV1Name)
		done <- result{conn, err}
	}()
	select {
	case r := <-done:
		return r.conn, r.err
	case <-ctx.Done():
		go func() { // the dialer takes no context: close what it still brings
			if r := <-done; r.err == nil {
				r.conn.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

// openStream opens the pair of streams that a forwarded connection is made of.
func openStream(conn httpstream.Connection, port int) (*forwarded, error) {
	h := http.Header{}
	h.Set(corev1.PortHeader, strconv.Itoa(port))
	h.Set(corev1.PortForwardRequestIDHeader, "0")
	h.Set(corev1.StreamType, corev1.StreamTypeError)
	errs, err := conn.CreateStream(h)
	if err != nil {
		return nil, err
	}
	errs.Close() // we write nothing there
	h.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := conn.CreateStream(h)
	if err != nil {
		return nil, err
	}
	f := &forwarded{Stream: data, conn: conn, done: make(chan struct{})}
	go f.watch(errs)
	return f, nil
}

// forwarded is a stream as a net.Conn. Deadlines are not kept: callers bound their waits by context.
type forwarded struct {
	httpstream.Stream
	conn httpstream.Connection
	once sync.Once

	done   chan struct{} // closed when the far side has said that all went well, or why not
	failed error         // set before done is closed
}

// watch reads why the far side could not go on. Closing the connection ends it.
func (f *forwarded) watch(errs io.Reader) {
	defer close(f.done)
	b, _ := io.ReadAll(io.LimitReader(errs, maxForwardError)) // a broken stream says nothing more
	if len(b) > 0 {
		f.failed = fmt.Errorf("%s", strings.TrimSpace(string(b)))
	}
}

func (f *forwarded) Read(p []byte) (int, error) {
	n, err := f.Stream.Read(p)
	if n == 0 && err == io.EOF {
		select {
		case <-f.done:
			if f.failed != nil {
				return 0, f.failed
			}
		case <-time.After(100 * time.Millisecond): // it may still be on its way
		}
	}
	return n, err
}

// Close ends the connection and waits for its goroutine.
func (f *forwarded) Close() (err error) {
	f.once.Do(func() {
		_ = f.Stream.Reset()
		err = f.conn.Close()
		<-f.done
	})
	return err
}

type forwardAddr string

func (a forwardAddr) Network() string { return "portforward" }
func (a forwardAddr) String() string  { return string(a) }

func (f *forwarded) LocalAddr() net.Addr              { return forwardAddr("here") }
func (f *forwarded) RemoteAddr() net.Addr             { return forwardAddr("pod") }
func (f *forwarded) SetDeadline(time.Time) error      { return nil }
func (f *forwarded) SetReadDeadline(time.Time) error  { return nil }
func (f *forwarded) SetWriteDeadline(time.Time) error { return nil }
