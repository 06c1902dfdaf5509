package record

import (
	"bytes"
	"crypto/tls"
	"encoding/hex"
	"strings"
	"testing"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func half(t testing.TB, suite uint16) *Half {
	t.Helper()
	h, err := NewHalf(suite, bytes.Repeat([]byte{7}, suites[suite].hash.Size()))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// TestTraceOfRFC8448 is the client's first record in section 3.
func TestTraceOfRFC8448(t *testing.T) {
	log := &Log{}
	for _, line := range []string{
		"CLIENT_HANDSHAKE_TRAFFIC_SECRET 00 b3eddb126e067f35a780b3abf45e2d8f3b1a950738f52e9600746a0e27a55a21\n",
		"CLIENT_TRAFFIC_SECRET_0 00 9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5\n",
		"SERVER_TRAFFIC_SECRET_0 00 a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643\n",
	} {
		if _, err := log.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	client, err := NewHalf(tls.TLS_AES_128_GCM_SHA256, log.Client)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := client.iv[:], unhex(t, "5b 78 92 3d ee 08 57 90 33 e5 23 d9"); !bytes.Equal(got, want) {
		t.Errorf("IV %x, want %x", got, want)
	}
	server, err := NewHalf(tls.TLS_AES_128_GCM_SHA256, log.Server)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := server.iv[:], unhex(t, "cf 78 2b 88 dd 83 54 9a ad f1 e9 84"); !bytes.Equal(got, want) {
		t.Errorf("the server's IV %x, want %x", got, want)
	}
	want := unhex(t, `17 03 03 00 43 a2 3f 70 54 b6 2c 94 d0 af fa fe 82 28 ba 55 cb ef ac ea 42 f9 14 aa 66 bc ab 3f 2b 98 19
		a8 a5 b4 6b 39 5b d5 4a 9a 20 44 1e 2b 62 97 4e 1f 5a 62 92 a2 97 70 14 bd 1e 3d ea e6 3a ee bb 21 69 49 15 e4`)
	rec := make([]byte, HeaderLen, 100)
	for i := range 50 {
		rec = append(rec, byte(i))
	}
	if got := client.Seal(rec, TypeData); !bytes.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
}

func TestWhatIsSealedOpens(t *testing.T) {
	for suite := range suites {
		t.Run(tls.CipherSuiteName(suite), func(t *testing.T) {
			a, b := half(t, suite), half(t, suite)
			room := make([]byte, MaxPlain+1)
			for i, n := range []int{0, 1, 2, 1000, MaxPlain - 1, MaxPlain, 5} {
				if i == 4 {
					if a.Update() != nil || b.Update() != nil {
						t.Fatal("no new keys")
					}
				}
				rec := make([]byte, HeaderLen+n, HeaderLen+n+Overhead)
				for j := range n {
					rec[HeaderLen+j] = byte(j * 7)
				}
				content := bytes.Clone(rec[HeaderLen:])
				rec = a.Seal(rec, TypeData)
				if size, err := Len(rec); err != nil || size != len(rec) || size != n+Overhead {
					t.Fatalf("%d bytes: %d of %d, %v", n, size, len(rec), err)
				}
				dst := room
				if i%2 == 0 {
					dst = nil // in place
				}
				typ, got, err := b.Open(dst, rec)
				if err != nil || typ != TypeData || !bytes.Equal(got, content) {
					t.Fatalf("%d bytes: %d, %d bytes, %v", n, typ, len(got), err)
				}
				if n > 0 && (&got[0] == &room[0]) != (dst != nil) {
					t.Errorf("%d bytes are in the wrong place", n)
				}
			}
		})
	}
}

func TestRecordsThatAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		header string
		want   error
	}{
		"an alert in the clear": {"15 03 03 00 02", AlertUnexpectedMessage},
		"a handshake message":   {"16 03 03 00 40", AlertUnexpectedMessage},
		"change_cipher_spec":    {"14 03 03 00 01", AlertUnexpectedMessage},
		"too long":              {"17 03 03 41 01", AlertRecordOverflow},
		"no content type":       {"17 03 03 00 10", AlertDecodeError},
		"nothing":               {"17 03 03 00 00", AlertDecodeError},
	} {
		if n, err := Len(unhex(t, c.header)); err != c.want {
			t.Errorf("%s: %d, %v", name, n, err)
		}
	}
	if n, err := Len(unhex(t, "17 03 03 41")); n != 0 || err != nil {
		t.Errorf("the beginning of a header: %d, %v", n, err)
	}
	seal := func(content []byte, typ byte) []byte {
		return half(t, tls.TLS_AES_128_GCM_SHA256).Seal(append(make([]byte, HeaderLen, len(content)+100), content...), typ)
	}
	for name, c := range map[string]struct {
		rec  []byte
		want error
	}{
		"nothing but padding": {seal(make([]byte, 10), 0), AlertUnexpectedMessage},
		"too much content":    {seal(bytes.Repeat([]byte{1}, MaxPlain+1), TypeData), AlertRecordOverflow},
		"a bit that is wrong": {func() []byte { r := seal([]byte("x"), TypeData); r[7] ^= 1; return r }(), AlertBadRecordMAC},
		"another header":      {func() []byte { r := seal([]byte("x"), TypeData); r[1] = 2; return r }(), AlertBadRecordMAC},
		"an older record":     {seal([]byte("x"), TypeData), AlertBadRecordMAC},
	} {
		h := half(t, tls.TLS_AES_128_GCM_SHA256)
		if name == "an older record" {
			h.seq = 1
		}
		if _, _, err := h.Open(nil, c.rec); err != c.want {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	h := half(t, tls.TLS_AES_128_GCM_SHA256)
	if typ, got, err := h.Open(nil, seal(append([]byte("data"), TypeData, 0, 0, 0), 0)); err != nil || typ != TypeData || string(got) != "data" {
		t.Errorf("padded: %d, %q, %v", typ, got, err)
	}
}

// Whoever goes on with a key must not use a number again.
func TestRecordsThatSomebodyElseHasSealed(t *testing.T) {
	for sealed := range uint64(maxBefore + 1) {
		first, h := half(t, tls.TLS_AES_128_GCM_SHA256), half(t, tls.TLS_AES_128_GCM_SHA256)
		other, err := NewHalf(tls.TLS_AES_128_GCM_SHA256, make([]byte, 32))
		if err != nil {
			t.Fatal(err)
		}
		last := other.Seal(append(make([]byte, HeaderLen, 100), "of another key"...), TypeHandshake)
		for range sealed {
			last = first.Seal(append(make([]byte, HeaderLen, 100), "a ticket"...), TypeHandshake)
		}
		if h.After(last); h.seq != sealed {
			t.Errorf("after %d records the next is %d", sealed, h.seq)
		}
	}
	h := half(t, tls.TLS_AES_128_GCM_SHA256)
	for _, rec := range [][]byte{nil, {TypeData}, {TypeData, 3, 3, 0, 40}, {TypeAlert, 3, 3, 0, 2, 1, 0}} {
		if h.After(rec); h.seq != 0 {
			t.Errorf("after % x the next is %d", rec, h.seq)
		}
	}
}

func TestKeysWear(t *testing.T) {
	h := half(t, tls.TLS_AES_128_GCM_SHA256)
	h.seq = 1<<24 - 1
	if h.Worn() {
		t.Error("too early")
	}
	h.Seal(make([]byte, HeaderLen, 100), TypeData)
	if !h.Worn() {
		t.Error("too late")
	}
	if err := h.Update(); err != nil || h.Worn() {
		t.Errorf("after an update: %v", err)
	}
}

func TestSecretsThatDoNotFit(t *testing.T) {
	if _, err := NewHalf(tls.TLS_AES_256_GCM_SHA384, make([]byte, 32)); err == nil {
		t.Error("a secret of the wrong length is taken")
	}
	if _, err := NewHalf(tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, make([]byte, 32)); err == nil {
		t.Error("a suite of TLS 1.2 is taken")
	}
	if _, err := (&Log{}).Write([]byte("SERVER_TRAFFIC_SECRET_0 00 zz\n")); err == nil {
		t.Error("a secret that is not in hexadecimal digits is taken")
	}
}

func TestMessagesAfterTheHandshake(t *testing.T) {
	ticket := []byte{msgNewSessionTicket, 0, 0, 3, 1, 2, 3}
	for name, c := range map[string]struct {
		parts         [][]byte
		server        bool
		update, asked bool
		err           error
	}{
		"a ticket":                         {parts: [][]byte{ticket}},
		"two in one record":                {parts: [][]byte{append(bytes.Clone(ticket), ticket...)}},
		"one in pieces":                    {parts: [][]byte{ticket[:1], ticket[1:5], ticket[5:]}},
		"a ticket for a server":            {parts: [][]byte{ticket}, server: true, err: AlertUnexpectedMessage},
		"a key update":                     {parts: [][]byte{KeyUpdate(false)}, server: true, update: true},
		"one that asks for another":        {parts: [][]byte{ticket, KeyUpdate(true)}, update: true, asked: true},
		"a key update with something else": {parts: [][]byte{append(KeyUpdate(false), ticket...)}, err: AlertUnexpectedMessage},
		"a key update of two bytes":        {parts: [][]byte{{msgKeyUpdate, 0, 0, 2, 0, 0}}, err: AlertDecodeError},
		"a key update of another kind":     {parts: [][]byte{{msgKeyUpdate, 0, 0, 1, 2}}, err: AlertDecodeError},
		"an empty record":                  {parts: [][]byte{{}}, err: AlertUnexpectedMessage},
		"a message that is too long":       {parts: [][]byte{{msgNewSessionTicket, 1, 0, 1}}, err: AlertDecodeError},
		"a request for a certificate":      {parts: [][]byte{{13, 0, 0, 1, 0}}, err: AlertUnexpectedMessage},
	} {
		m := Messages{Client: !c.server}
		var update, asked bool
		var err error
		for i, p := range c.parts {
			if update, asked, err = m.Take(p); err == nil && m.Pending() != (name == "one in pieces" && i < 2) {
				t.Errorf("%s: pending %v after part %d", name, m.Pending(), i)
			}
		}
		if update != c.update || asked != c.asked || err != c.err {
			t.Errorf("%s: update %v, asked %v, %v", name, update, asked, err)
		}
	}
}
