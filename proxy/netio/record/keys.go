package record

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	_ "crypto/sha256" // TLS_AES_128_GCM_SHA256, TLS_CHACHA20_POLY1305_SHA256
	_ "crypto/sha512" // TLS_AES_256_GCM_SHA384
	"crypto/tls"
	"encoding/hex"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// Log is a [tls.Config]'s KeyLogWriter for one handshake: it keeps the first application traffic secrets.
type Log struct {
	Client, Server []byte // nil: not agreed on, as before TLS 1.3
}

// Write takes one line of a key log: a label, the client's random and a secret.
func (l *Log) Write(line []byte) (int, error) {
	label, rest, _ := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(" "))
	var to *[]byte
	switch string(label) {
	case "CLIENT_TRAFFIC_SECRET_0":
		to = &l.Client
	case "SERVER_TRAFFIC_SECRET_0":
		to = &l.Server
	default:
		return len(line), nil
	}
	_, text, _ := bytes.Cut(rest, []byte(" "))
	secret, err := hex.AppendDecode(nil, text)
	if err != nil {
		return 0, fmt.Errorf("record: key log: %s: %w", label, err) // err names a byte and its place at most
	}
	*to = secret
	return len(line), nil
}

// suite is what a cipher suite of TLS 1.3 is made of.
type suite struct {
	hash crypto.Hash
	key  int // bytes
	aead func(key []byte) (cipher.AEAD, error)
}

var suites = map[uint16]*suite{
	tls.TLS_AES_128_GCM_SHA256:       {crypto.SHA256, 16, newGCM},
	tls.TLS_AES_256_GCM_SHA384:       {crypto.SHA384, 32, newGCM},
	tls.TLS_CHACHA20_POLY1305_SHA256: {crypto.SHA256, chacha20poly1305.KeySize, chacha20poly1305.New},
}

func newGCM(key []byte) (cipher.AEAD, error) {
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(b)
}

// Half protects one direction. It is not safe for concurrent use.
type Half struct {
	suite  *suite
	secret []byte
	aead   cipher.AEAD
	iv     [ivLen]byte
	nonce  [ivLen]byte
	seq    uint64
}

const ivLen = 12

// NewHalf makes the protection of one direction, from its first record on.
func NewHalf(cipherSuite uint16, secret []byte) (*Half, error) {
	s := suites[cipherSuite]
	if s == nil {
		return nil, fmt.Errorf("record: cipher suite %s is not of TLS 1.3", tls.CipherSuiteName(cipherSuite))
	}
	if len(secret) != s.hash.Size() {
		return nil, fmt.Errorf("record: the secret has %d bytes, %s needs %d", len(secret), tls.CipherSuiteName(cipherSuite), s.hash.Size())
	}
	h := &Half{suite: s, secret: secret}
	return h, h.derive()
}

// Update goes on to the next traffic secret (RFC 8446 section 7.2).
func (h *Half) Update() error {
	next, err := h.expand("traffic upd", h.suite.hash.Size())
	if err != nil {
		return err
	}
	clear(h.secret)
	h.secret = next
	return h.derive()
}

// derive makes the key and the IV of the secret (RFC 8446 section 7.3).
func (h *Half) derive() error {
	key, err := h.expand("key", h.suite.key)
	if err != nil {
		return err
	}
	defer clear(key)
	iv, err := h.expand("iv", ivLen)
	if err != nil {
		return err
	}
	h.seq = 0
	copy(h.iv[:], iv)
	h.aead, err = h.suite.aead(key)
	return err
}

// expand is HKDF-Expand-Label without a context (RFC 8446 section 7.1).
func (h *Half) expand(label string, n int) ([]byte, error) {
	const prefix = "tls13 "
	info := append([]byte{byte(n >> 8), byte(n), byte(len(prefix) + len(label))}, prefix...)
	info = append(append(info, label...), 0)
	return hkdf.Expand(h.suite.hash.New, h.secret, string(info), n)
}

// next is the nonce of the next record (RFC 8446 section 5.3).
func (h *Half) next() []byte {
	h.nonce = h.iv
	for i := range 8 {
		h.nonce[ivLen-1-i] ^= byte(h.seq >> (8 * i))
	}
	h.seq++
	return h.nonce[:]
}

// Worn tells whether so many records were protected with one key that it should be updated: AES-GCM is good for 2^24.5
// (RFC 8446 section 5.5).
func (h *Half) Worn() bool { return h.seq >= 1<<24 }
