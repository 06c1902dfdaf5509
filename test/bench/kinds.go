package main

// Kinds of work that a peer can be set up for.
const (
	kindH1   = "h1"   // HTTP/1.1 to HTTP/1.1
	kindPair = "mtls" // HTTP/1.1 to an mTLS client, to an mTLS server, to HTTP/1.1
	kindH2   = "h2"   // h2c to h2c
	kindGRPC = "grpc" // the pair with HTTP/2 all the way
	kindH1H2 = "h1h2" // HTTP/1.1 to h2c
	kindTCP  = "tcp"
	kindTLS  = "tls" // the server's end of the pair alone; the load is the mTLS client
)

// paired kinds have two proxies with mTLS between them.
func paired(kind string) bool { return kind == kindPair || kind == kindGRPC }

// server kinds have an end that terminates mTLS.
func hasServerEnd(kind string) bool { return paired(kind) || kind == kindTLS }

// downH2 and upH2 tell which sides of a kind speak HTTP/2.
func downH2(kind string) bool { return kind == kindH2 || kind == kindGRPC }
func upH2(kind string) bool   { return downH2(kind) || kind == kindH1H2 }
