package streamtest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"weft.mesh/weft/internal/memnet"
	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/stream"
)

// Codec is one protocol, as the suite needs it.
type Codec struct {
	Name        string
	Multiplexed bool
	Serve       func(ctx context.Context, c *netio.Conn, l Limits, h func(context.Context, stream.Server)) error
	Client      func(t testing.TB, c *netio.Conn) Starter
}

// Transport makes connected pairs.
type Transport struct {
	Name string
	Pair func(t testing.TB) (client, server *netio.Conn)
}

// Transports are all kinds of connection that the proxy knows.
func Transports() []Transport {
	return []Transport{{"in memory", Memory}, {"TCP", TCP}, {"TLS", TLS}}
}

// Memory is a pair without sockets.
func Memory(testing.TB) (client, server *netio.Conn) {
	c, s := memnet.Pipe(memnet.Link{})
	return netio.New(c), netio.New(s)
}

// TCP is a pair over loopback.
func TCP(t testing.TB) (client, server *netio.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	type result struct {
		c   net.Conn
		err error
	}
	accepted := make(chan result, 1)
	go func() {
		c, err := l.Accept()
		accepted <- result{c, err}
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s := <-accepted
	if s.err != nil {
		t.Fatal(s.err)
	}
	return netio.New(c), netio.New(s.c)
}

var certificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

// ServerTLS is a server's configuration with a certificate of its own making.
func ServerTLS() *tls.Config { return &tls.Config{Certificates: []tls.Certificate{certificate()}} }

// TLS is a pair over loopback with TLS 1.3 on it.
func TLS(t testing.TB) (client, server *netio.Conn) {
	t.Helper()
	client, server = TCP(t)
	done := make(chan error, 1)
	go func() {
		done <- server.StartTLSServer(context.Background(), ServerTLS())
	}()
	if err := client.StartTLSClient(context.Background(), &tls.Config{InsecureSkipVerify: true}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return client, server
}

// Direct is a client right at a server.
func Direct(c Codec, tr Transport) Pair {
	return Pair{Name: c.Name + " over " + tr.Name, Multiplexed: c.Multiplexed, Direct: true,
		Connect: func(t testing.TB, l Limits, h Handler) Starter {
			client, server := tr.Pair(t)
			serve(t, c, server, l, h)
			s := c.Client(t, client)
			t.Cleanup(s.Close)
			return s
		}}
}

// serve runs a server until the test ends.
func serve(t testing.TB, c Codec, nc *netio.Conn, l Limits, h Handler) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.Serve(ctx, nc, l, h)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

// Through is a client at a proxy, which forwards each exchange to the server on a connection of its own.
func Through(down, up Codec, tr Transport) Pair {
	return Pair{Name: down.Name + " to " + up.Name + " over " + tr.Name, Multiplexed: down.Multiplexed,
		Connect: func(t testing.TB, l Limits, h Handler) Starter {
			client, proxy := tr.Pair(t)
			serve(t, down, proxy, l, func(_ context.Context, s stream.Server) {
				origin, server := tr.Pair(t)
				ctx, cancel := context.WithCancel(context.Background())
				done := make(chan struct{})
				defer func() {
					cancel()
					<-done
				}()
				go func() {
					defer close(done)
					_ = up.Serve(ctx, server, Limits{}, h)
				}()
				cc := up.Client(t, origin)
				defer cc.Close()
				x, err := cc.Start()
				if err != nil {
					t.Error(err)
					s.Abort()
					return
				}
				_ = Forward(s, x)
				x.Close()
			})
			s := down.Client(t, client)
			t.Cleanup(s.Close)
			return s
		}}
}
