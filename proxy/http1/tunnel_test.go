package http1

import (
	"strings"
	"testing"
	"testing/synctest"

	"weft.mesh/weft/internal/memnet"
	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/stream"
)

// TestATunnelThatFailsHoldsUpNoWriter: who writes into a tunnel waits for the upstream's answer. Where none will come, he must not wait
// until the exchange is closed: whoever closes it waits for him first.
func TestATunnelThatFailsHoldsUpNoWriter(t *testing.T) {
	for name, response := range map[string]string{
		"closes at once":               "",
		"closes in the head":           "HTTP/1.1 101 Switching",
		"speaks something else":        "220 smtp.example ESMTP\r\n\r\n",
		"switches to something else":   "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
		"sends informational for ever": strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 100),
	} {
		for _, method := range []string{"GET", "CONNECT"} {
			if method == "CONNECT" && strings.Contains(response, "Upgrade:") {
				continue // 101 never answers CONNECT; covered by GET
			}
			t.Run(method+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a, b := memnet.Pipe(memnet.Link{})
					answer := make(chan struct{})
					go func() {
						_, _ = b.Read(make([]byte, 1000))
						<-answer
						_, _ = b.Write([]byte(response))
						_ = b.Close()
					}()
					cc := NewClientConn(netio.New(a), &stream.ConnInfo{}, ClientOptions{})
					x, err := cc.Start()
					if err != nil {
						t.Fatal(err)
					}
					r := &stream.Request{Method: []byte(method), Authority: []byte("a"), Path: []byte("/")}
					if method == "GET" {
						r.Upgrade = []byte("websocket")
					}
					if err := x.WriteHead(r, false); err != nil {
						t.Fatal(err)
					}
					written := make(chan error, 1)
					go func() { written <- x.WriteBody(nil, true) }()
					synctest.Wait()
					if len(written) != 0 {
						t.Fatal("the end was written before it was known whether there is a tunnel")
					}
					close(answer)
					for err == nil {
						_, err = x.ReadHead()
					}
					synctest.Wait()
					if len(written) == 0 {
						t.Error("the writer still waits")
					}
					x.Close()
					<-written
				})
			})
		}
	}
}
