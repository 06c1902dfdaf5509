// Package identity owns a workload's key, certificate chain and trust bundle.
//
// A [Source] gives the current SVID and the roots to verify others with, tells
// when they change, keeps them on disk (mode 0600, in a directory 0700) so that a
// restart without a certificate authority works, and renews the certificate at
// half of its life over istio.v1.auth.IstioCertificateService.
//
// The key is made here for each certificate and never leaves the process except
// into the state directory. What the authority returns is checked before it is used: it
// must be for our key and our SPIFFE ID and chain to the roots it came with.
// An expired certificate is never handed out. Safe for concurrent use; the only
// goroutine is the caller's in [Source.Run].
package identity
