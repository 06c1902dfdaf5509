package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ports is a flag that may be repeated.
type ports []int

func (p *ports) String() string { return fmt.Sprint(*p) }

func (p *ports) Set(s string) error {
	n, err := strconv.ParseUint(s, 10, 16)
	*p = append(*p, int(n))
	return err
}

// settings are the server's flags. cert and key are taken if the files exist; else the certificate is made here.
type settings struct {
	http, tls, grpc, tcp ports
	cert, key            string
}

func parseServer(args []string) (*settings, error) {
	var s settings
	f := flag.NewFlagSet("server", flag.ContinueOnError)
	f.Var(&s.http, "port", "port for HTTP/1.1 and HTTP/2 without TLS (repeat)")
	f.Var(&s.tls, "tls", "which of the ports speak TLS (repeat)")
	f.Var(&s.grpc, "grpc", "port for gRPC (repeat)")
	f.Var(&s.tcp, "tcp", "port for TCP, which sends back what it gets (repeat)")
	f.StringVar(&s.cert, "crt", "", "PEM file of the certificate")
	f.StringVar(&s.key, "key", "", "PEM file of the key")
	return &s, f.Parse(args)
}

// runServer serves on all ports until the context ends.
func runServer(ctx context.Context, args []string) error {
	s, err := parseServer(args)
	if err != nil {
		return err
	}
	certificate, err := s.certificate()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	serve := func(port int, f func(context.Context, net.Listener) error) {
		wg.Go(func() {
			l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
			if err == nil {
				err = f(ctx, l)
			}
			if err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("port %d: %w", port, err))
			}
		})
	}
	for _, p := range s.http {
		serve(p, func(ctx context.Context, l net.Listener) error {
			if slices.Contains(s.tls, p) {
				l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"h2", "http/1.1"}})
			}
			return serveHTTP(ctx, l, p)
		})
	}
	for _, p := range s.grpc {
		serve(p, func(ctx context.Context, l net.Listener) error { return serveGRPC(ctx, l, p) })
	}
	for _, p := range s.tcp {
		serve(p, serveTCP)
	}
	<-ctx.Done()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func serveHTTP(ctx context.Context, l net.Listener, port int) error {
	s := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		io.WriteString(w, describe(r, port))
	})}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	return s.Serve(l)
}

// describe is what was asked, one fact a line.
func describe(r *http.Request, port int) string {
	var b strings.Builder
	fact(&b, "Host", r.Host)
	fact(&b, "Method", r.Method)
	fact(&b, "Proto", r.Proto)
	fact(&b, "URL", r.URL.RequestURI())
	if ip, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		fact(&b, "IP", ip)
	}
	who(&b, port)
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		for _, v := range r.Header[name] {
			fact(&b, "RequestHeader", name+":"+v)
		}
	}
	return b.String()
}

// who says which pod answers.
func who(b *strings.Builder, port int) {
	host, _ := os.Hostname()
	fact(b, "Hostname", host)
	fact(b, "ServicePort", strconv.Itoa(port))
}

// fact writes a line; what came from outside cannot begin another.
func fact(b *strings.Builder, name, value string) {
	fmt.Fprintf(b, "%s=%s\n", name, strings.NewReplacer("\r", " ", "\n", " ").Replace(value))
}

func serveTCP(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() { // ends with the connection, which ends with the process
			defer c.Close()
			io.Copy(c, c)
		}()
	}
}

// certificate is that of the flags, or a new one that nobody can verify: clients of the suite do not.
func (s *settings) certificate() (tls.Certificate, error) {
	if _, err := os.Stat(s.cert); s.cert != "" && err == nil {
		return tls.LoadX509KeyPair(s.cert, s.key)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "echo"}, DNSNames: []string{"echo"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
