package netio

import (
	"bytes"
	"crypto/tls"

	"weft.mesh/weft/proxy/netio/record"
)

// keys follows a handshake, after which the connection's records are ours: see package record. Nil follows nothing.
type keys struct {
	log    record.Log
	server bool
	last   []byte // the last record that was written
}

// newKeys returns nil where the records stay with crypto/tls from the start: without a socket, or for a client that resumes sessions.
func newKeys(c *Conn, cfg *tls.Config, server bool) *keys {
	if c.raw == nil || cfg.KeyLogWriter != nil || !server && cfg.ClientSessionCache != nil {
		return nil
	}
	return &keys{server: server}
}

// config is cfg as crypto/tls is to have it.
func (k *keys) config(cfg *tls.Config) *tls.Config {
	choose := cfg.GetConfigForClient
	if k == nil && cfg.DynamicRecordSizingDisabled {
		return cfg
	}
	cfg = k.listen(cfg)
	if k != nil && k.server && choose != nil {
		cfg.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			other, err := choose(h)
			if other == nil || err != nil {
				return other, err
			}
			return k.listen(other), nil
		}
	}
	return cfg
}

// listen is cfg with our key log.
func (k *keys) listen(cfg *tls.Config) *tls.Config {
	cfg = cfg.Clone()
	// Small records early in a connection would split a 1 KB response in two, where they stay with crypto/tls.
	cfg.DynamicRecordSizingDisabled = true
	if k != nil {
		cfg.KeyLogWriter = &k.log
	}
	return cfg
}

// wrote is told what the handshake has written: whole records.
func (k *keys) wrote(p []byte) {
	if k == nil || !k.server {
		return
	}
	last := p
	for n := 0; len(p) >= record.HeaderLen; p = p[n:] {
		last, n = p, min(len(p), record.HeaderLen+int(p[3])<<8+int(p[4]))
	}
	k.last = bytes.Clone(last)
}

// session takes over after the handshake; nil: the connection stays with crypto/tls.
func (k *keys) session(s *shim, state *tls.ConnectionState) (session, error) {
	if k == nil || state.Version != tls.VersionTLS13 || s.pre.Len() > recordBuf {
		return nil, nil
	}
	in, out := k.log.Server, k.log.Client
	if k.server {
		in, out = out, in
	}
	opens, err := record.NewHalf(state.CipherSuite, in)
	if err != nil {
		return nil, err
	}
	seals, err := record.NewHalf(state.CipherSuite, out)
	if err != nil {
		return nil, err
	}
	if k.server && k.last != nil {
		seals.After(k.last)
	}
	return newRecords(s, opens, seals, !k.server), nil
}
