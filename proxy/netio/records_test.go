package netio

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"weft.mesh/weft/proxy/netio/record"
)

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

// ends are the two ends of a connection with TLS; one that is crypto/tls' is a *tls.Conn.
func ends(t testing.TB, ours, theirs *tls.Config, client bool) (*Conn, *tls.Conn) {
	t.Helper()
	c, peer := tcpPair(t)
	var other *tls.Conn
	start := c.StartTLSServer
	if client {
		start = c.StartTLSClient
		other = tls.Server(peer, theirs)
	} else {
		other = tls.Client(peer, theirs)
	}
	done := make(chan error, 1)
	go func() { done <- other.HandshakeContext(context.Background()) }()
	if err := start(context.Background(), ours); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return c, other
}

func serverConfig(tickets bool) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{certificate()}, SessionTicketsDisabled: !tickets}
}

func clientConfig() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }

func TestWhoseTheRecordsAre(t *testing.T) {
	chooses := func(other *tls.Config) *tls.Config {
		cfg := serverConfig(true)
		cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return other, nil }
		return cfg
	}
	asks := func() *tls.Config { // then a ticket comes after the client's last message
		cfg := serverConfig(true)
		cfg.ClientAuth = tls.RequestClientCert
		return cfg
	}
	old := func(cfg *tls.Config) *tls.Config { cfg.MaxVersion = tls.VersionTLS12; return cfg }
	resumes := clientConfig()
	resumes.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for name, c := range map[string]struct {
		ours, theirs *tls.Config
		client, want bool
	}{
		"a server":                                {serverConfig(false), clientConfig(), false, true},
		"a server that chooses":                   {chooses(serverConfig(false)), clientConfig(), false, true},
		"a server that chooses nothing":           {chooses(nil), clientConfig(), false, true},
		"a server that sends tickets":             {serverConfig(true), clientConfig(), false, true},
		"a server that chooses to send them":      {chooses(serverConfig(true)), clientConfig(), false, true},
		"a server that asks for a certificate":    {asks(), clientConfig(), false, true},
		"a server's of TLS 1.2":                   {old(serverConfig(false)), clientConfig(), false, false},
		"a client":                                {clientConfig(), serverConfig(false), true, true},
		"a client of a server that sends tickets": {clientConfig(), serverConfig(true), true, true},
		"a client that resumes":                   {resumes, serverConfig(true), true, false},
		"a client's of TLS 1.2":                   {clientConfig(), old(serverConfig(false)), true, false},
	} {
		t.Run(name, func(t *testing.T) {
			mine, other := ends(t, c.ours, c.theirs, c.client)
			_, records := mine.tls.Load().session.(*records)
			if records != c.want {
				t.Errorf("records are ours: %v", records)
			}
			exchange(t, mine, other)
			if c.ours.KeyLogWriter != nil {
				t.Error("the configuration was changed")
			}
		})
	}
}

// exchange lets both ends say things of many sizes, and end.
func exchange(t *testing.T, a *Conn, b net.Conn) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	_ = a.SetDeadline(deadline)
	_ = b.SetDeadline(deadline)
	want := make([]byte, 300<<10)
	_, _ = rand.Read(want)
	var wg sync.WaitGroup
	wg.Go(func() { // b says it and gets it back
		rest := want
		for n := 1; len(rest) > 0; n = n*3 + 1 {
			n := min(n, len(rest))
			if _, err := b.Write(rest[:n]); err != nil {
				t.Error(err)
				return
			}
			rest = rest[n:]
		}
	})
	wg.Go(func() {
		var buf Buffer
		defer buf.Release()
		for left, i := len(want), 0; left > 0; i++ {
			buf.SetWide(i%3 == 0)
			if err := a.Fill(&buf); err != nil {
				t.Error(err)
				return
			}
			p := buf.Bytes()
			left -= len(p)
			third := len(p) / 3
			if err := a.WriteParts(p[:third], p[third:2*third], p[2*third:]); err != nil {
				t.Error(err)
				return
			}
			buf.Consume(len(p))
		}
		if err := a.CloseWrite(); err != nil {
			t.Error(err)
		}
		if _, err := a.Write([]byte("x")); err == nil {
			t.Error("writes after its end")
		}
	})
	got, err := io.ReadAll(b)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
	}
	wg.Wait()
	_ = b.Close()
	if n, err := a.Read(make([]byte, 10)); err != io.EOF {
		t.Errorf("after the peer's end: %d, %v", n, err)
	}
	_ = a.Close()
	if used := wideUsed.Load(); used != 0 {
		t.Errorf("%d wide buffers are in use", used)
	}
}

// sealed is a server's session of records, and the halves of a client whose secrets it has.
func sealed(t testing.TB, suite uint16, n int) (c *Conn, peer *net.TCPConn, seals, opens *record.Half) {
	t.Helper()
	c, peer = tcpPair(t)
	c.shim = &shim{c: c, fd: noFD}
	half := func(b byte) *record.Half {
		h, err := record.NewHalf(suite, bytes.Repeat([]byte{b}, n))
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	c.state = &tls.ConnectionState{Version: tls.VersionTLS13}
	c.tls.Store(&secured{newRecords(c.shim, half(1), half(2), false)})
	return c, peer, half(1), half(2)
}

func seal(h *record.Half, typ byte, content string) []byte {
	rec := append(make([]byte, record.HeaderLen, len(content)+record.Overhead), content...)
	return h.Seal(rec, typ)
}

// next is the peer's next record, opened.
func next(t *testing.T, peer net.Conn, h *record.Half) (byte, string) {
	t.Helper()
	_ = peer.SetReadDeadline(time.Now().Add(10 * time.Second))
	rec := make([]byte, record.HeaderLen)
	if _, err := io.ReadFull(peer, rec); err != nil {
		t.Fatal(err)
	}
	n, err := record.Len(rec)
	if err != nil {
		t.Fatal(err)
	}
	rec = append(rec, make([]byte, n-len(rec))...)
	if _, err := io.ReadFull(peer, rec[record.HeaderLen:]); err != nil {
		t.Fatal(err)
	}
	typ, content, err := h.Open(nil, rec)
	if err != nil {
		t.Fatal(err)
	}
	return typ, string(content)
}

func TestKeyUpdates(t *testing.T) {
	for suite, n := range map[uint16]int{tls.TLS_AES_128_GCM_SHA256: 32, tls.TLS_AES_256_GCM_SHA384: 48, tls.TLS_CHACHA20_POLY1305_SHA256: 32} {
		c, peer, seals, opens := sealed(t, suite, n)
		hear := func(want string) {
			t.Helper()
			got := make([]byte, len(want))
			if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
				t.Fatalf("%q, %v", got, err)
			}
		}
		for _, ask := range []bool{false, true, true} { // two that ask are answered once
			_, _ = peer.Write(seal(seals, record.TypeHandshake, string(record.KeyUpdate(ask))))
			if err := seals.Update(); err != nil {
				t.Fatal(err)
			}
			_, _ = peer.Write(seal(seals, record.TypeData, "hello"))
			hear("hello")
		}
		for i := range 3 {
			if _, err := c.Write([]byte("answer")); err != nil {
				t.Fatal(err)
			}
			typ, got := next(t, peer, opens)
			if i == 0 {
				if typ != record.TypeHandshake || got != string(record.KeyUpdate(false)) {
					t.Fatalf("%d %q, want new keys", typ, got)
				}
				if err := opens.Update(); err != nil {
					t.Fatal(err)
				}
				typ, got = next(t, peer, opens)
			}
			if typ != record.TypeData || got != "answer" {
				t.Fatalf("%d, %q", typ, got)
			}
		}
	}
}

func TestRecordsThatEndAConnection(t *testing.T) {
	var alert tls.AlertError
	is := func(want tls.AlertError) func(error) bool {
		return func(err error) bool { return errors.As(err, &alert) && alert == want }
	}
	end := func(want error) func(error) bool { return func(err error) bool { return err == want } }
	for name, c := range map[string]struct {
		send func(h *record.Half) []byte
		want func(error) bool
		say  int // the alert that the peer gets; -1: none
	}{
		"close_notify":            {func(h *record.Half) []byte { return seal(h, record.TypeAlert, "\x01\x00") }, end(io.EOF), -1},
		"the end without it":      {func(*record.Half) []byte { return nil }, end(io.EOF), -1},
		"the end within a record": {func(h *record.Half) []byte { return seal(h, record.TypeData, "hello")[:20] }, end(io.ErrUnexpectedEOF), -1},
		"the peer's alert":        {func(h *record.Half) []byte { return seal(h, record.TypeAlert, "\x02\x2a") }, is(42), -1},
		"half an alert":           {func(h *record.Half) []byte { return seal(h, record.TypeAlert, "\x02") }, is(record.AlertDecodeError), 50},
		"an alert in the clear":   {func(*record.Half) []byte { return []byte{21, 3, 3, 0, 2, 2, 40} }, is(record.AlertUnexpectedMessage), 10},
		"a bit that is wrong": {func(h *record.Half) []byte {
			r := seal(h, record.TypeData, "hello")
			r[8] ^= 1
			return r
		}, is(record.AlertBadRecordMAC), 20},
		"a record twice": {func(h *record.Half) []byte {
			r := seal(h, record.TypeHandshake, string(record.KeyUpdate(false)))
			return append(r, r...)
		}, is(record.AlertBadRecordMAC), 20},
		"too long":              {func(*record.Half) []byte { return []byte{23, 3, 3, 0x41, 1} }, is(record.AlertRecordOverflow), 22},
		"a ticket for a server": {func(h *record.Half) []byte { return seal(h, record.TypeHandshake, "\x04\x00\x00\x00") }, is(record.AlertUnexpectedMessage), 10},
		"change_cipher_spec":    {func(h *record.Half) []byte { return seal(h, 20, "\x01") }, is(record.AlertUnexpectedMessage), 10},
		"a heartbeat":           {func(h *record.Half) []byte { return seal(h, 24, "\x01\x00\x00") }, is(record.AlertUnexpectedMessage), 10},
		"data in a message": {func(h *record.Half) []byte {
			return append(seal(h, record.TypeHandshake, "\x18"), seal(h, record.TypeData, "x")...)
		}, is(record.AlertUnexpectedMessage), 10},
		"an empty record within": {func(h *record.Half) []byte {
			return append(seal(h, record.TypeHandshake, "\x18"), seal(h, record.TypeData, "")...)
		}, is(record.AlertUnexpectedMessage), 10},
		"empty records in a row":   {func(h *record.Half) []byte { return repeated(h, record.TypeData, "") }, is(record.AlertUnexpectedMessage), 10},
		"user_canceled in a row":   {func(h *record.Half) []byte { return repeated(h, record.TypeAlert, "\x01\x5a") }, is(record.AlertUnexpectedMessage), 10},
		"what is not TLS any more": {func(*record.Half) []byte { return []byte("GET / HTTP/1.1\r\n\r\n") }, is(record.AlertUnexpectedMessage), 10},
	} {
		t.Run(name, func(t *testing.T) {
			mine, peer, seals, opens := sealed(t, tls.TLS_AES_128_GCM_SHA256, 32)
			_, _ = peer.Write(append(seal(seals, record.TypeData, "first"), c.send(seals)...))
			_ = peer.CloseWrite()
			got := make([]byte, 5)
			if _, err := io.ReadFull(mine, got); err != nil || string(got) != "first" {
				t.Fatalf("%q, %v", got, err)
			}
			for range 2 { // an end lasts
				if n, err := mine.Read(got); n != 0 || !c.want(err) {
					t.Errorf("%d, %v", n, err)
				}
			}
			if c.say >= 0 {
				if typ, got := next(t, peer, opens); typ != record.TypeAlert || got != string([]byte{2, byte(c.say)}) {
					t.Errorf("the peer gets %d, %q", typ, got)
				}
				if _, err := mine.Write([]byte("x")); !c.want(err) {
					t.Errorf("a write: %v", err)
				}
			} else if name == "close_notify" { // the other direction goes on
				if _, err := mine.Write([]byte("x")); err != nil {
					t.Error(err)
				}
				if typ, got := next(t, peer, opens); typ != record.TypeData || got != "x" {
					t.Errorf("the peer gets %d, %q", typ, got)
				}
			}
			_ = mine.Close()
			if c.say < 0 {
				if typ, got := next(t, peer, opens); typ != record.TypeAlert || got != "\x01\x00" {
					t.Errorf("the peer gets %d, %q", typ, got)
				}
			}
			if n, err := peer.Read(got); err != io.EOF && !IsReset(err) {
				t.Errorf("and then %d bytes, %v", n, err)
			}
		})
	}
}

// repeated is a record after record, of new keys each time where they are updates.
func repeated(h *record.Half, typ byte, content string) []byte {
	var out []byte
	for range maxUseless + 1 {
		out = append(out, seal(h, typ, content)...)
	}
	return out
}

func TestRecordsThatComeInPieces(t *testing.T) {
	c, peer, seals, _ := sealed(t, tls.TLS_AES_128_GCM_SHA256, 32)
	want := bytes.Repeat([]byte("0123456789"), 5000)
	go func() {
		var wire []byte
		for p := want; len(p) > 0; {
			n := min(len(p), record.MaxPlain)
			wire = append(wire, seal(seals, record.TypeData, string(p[:n]))...)
			p = p[n:]
		}
		for n := 1; len(wire) > 0; n = n%5000 + 777 {
			n := min(n, len(wire))
			_, _ = peer.Write(wire[:n])
			wire = wire[n:]
		}
		_ = peer.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d of %d bytes, %v", len(got), len(want), err)
	}
}

// Whoever waits for the rest of a record waits for the socket; whoever has a whole one does not.
func TestWhatIsHeldWakesNobody(t *testing.T) {
	c, peer, seals, _ := sealed(t, tls.TLS_AES_128_GCM_SHA256, 32)
	one, other := seal(seals, record.TypeData, "one"), seal(seals, record.TypeData, "other")
	_, _ = peer.Write(append(bytes.Clone(one), other[:10]...))
	p := make([]byte, 3)
	if _, err := io.ReadFull(c, p); err != nil || string(p) != "one" || c.ahead() {
		t.Fatalf("%q, %v, ahead %v", p, err, c.ahead())
	}
	if !c.Quiet() { // not a whole record
		t.Error("waits for the rest of a record without the socket")
	}
	_, _ = peer.Write(other[10:])
	if _, err := io.ReadFull(c, p); err != nil || string(p) != "oth" || !c.ahead() || c.Quiet() {
		t.Errorf("%q, %v, ahead %v", p, err, c.ahead())
	}
}

// FuzzRecords feeds a session what a peer with the right keys may send: kinds and sizes of contents, and where the stream is cut.
func FuzzRecords(f *testing.F) {
	f.Add([]byte{23, 5, 'h', 'e', 'l', 'l', 'o', 22, 5, 24, 0, 0, 1, 1, 21, 2, 1, 0}, uint16(0), byte(100))
	f.Add([]byte{22, 1, 24, 22, 4, 0, 0, 1, 1, 23, 0}, uint16(3), byte(0))
	f.Add([]byte{21, 2, 1, 90, 23, 1, 'x'}, uint16(25), byte(1))
	f.Fuzz(func(t *testing.T, script []byte, broken uint16, room byte) {
		secret := bytes.Repeat([]byte{1}, 32)
		seals, _ := record.NewHalf(tls.TLS_AES_128_GCM_SHA256, bytes.Clone(secret))
		opens, _ := record.NewHalf(tls.TLS_AES_128_GCM_SHA256, bytes.Clone(secret))
		out, _ := record.NewHalf(tls.TLS_AES_128_GCM_SHA256, bytes.Clone(secret))
		c, _ := net.Pipe()
		s := &records{r: &raw{c: &Conn{nc: c}, shut: true}, in: opens, out: out}
		var wire []byte
		var want []byte // data that was sealed in order, as far as it may be read
		for len(script) >= 2 {
			typ, n := max(script[0], 1), min(int(script[1]), len(script)-2) // 0 would be padding
			content := script[2 : 2+n]
			script = script[2+n:]
			wire = append(wire, seal(seals, typ, string(content))...)
			if typ == record.TypeData {
				want = append(want, content...)
			}
			if typ == record.TypeHandshake && bytes.HasSuffix(content, record.KeyUpdate(false)) {
				_ = seals.Update()
			}
		}
		if broken > 0 && len(wire) > 0 {
			wire[int(broken)%len(wire)] ^= 1
		}
		s.held, s.to = wire, len(wire)
		var got []byte
		p := make([]byte, 1+int(room))
		for {
			n := s.openHeld(p)
			if n == 0 {
				break
			}
			got = append(got, p[:n]...)
		}
		if !bytes.HasPrefix(want, got) {
			t.Errorf("%q is not the beginning of %q", got, want)
		}
		if s.err == nil && s.ahead() {
			t.Error("a whole record is left")
		}
	})
}
