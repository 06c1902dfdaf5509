// Package record is the record protection of TLS 1.3 (RFC 8446 section 5) without any I/O: it seals and opens the records of
// a connection whose handshake crypto/tls has done, with the traffic secrets that crypto/tls tells its key log.
//
// crypto/tls allocates for each record that it reads, copies it on the way, and writes one record with each system call; see
// docs/adr/0012. What is secret or negotiated stays its own: certificates, key exchange, ciphers, alerts of the handshake.
package record
