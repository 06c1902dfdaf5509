package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// question is what the client was told to ask.
type question struct {
	url     *url.URL
	method  string
	headers headers
	count   int
	timeout time.Duration
}

// headers is a flag that may be repeated: name:value.
type headers [][2]string

func (h *headers) String() string { return fmt.Sprint(*h) }

func (h *headers) Set(s string) error {
	name, value, ok := strings.Cut(s, ":")
	if !ok {
		return fmt.Errorf("header %q: want name:value", s)
	}
	*h = append(*h, [2]string{name, strings.TrimSpace(value)})
	return nil
}

// parseClient: the URL may stand before the flags, as the suite writes it.
func parseClient(args []string) (*question, error) {
	q := &question{}
	f := flag.NewFlagSet("client", flag.ContinueOnError)
	f.Var(&q.headers, "H", "header, name:value (repeat)")
	f.StringVar(&q.method, "method", http.MethodGet, "HTTP method")
	f.IntVar(&q.count, "count", 1, "number of requests")
	f.DurationVar(&q.timeout, "timeout", 15*time.Second, "for one request")
	var target string
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		target, args = args[0], args[1:]
	}
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if target == "" {
		target = f.Arg(0)
	}
	var err error
	if q.url, err = url.Parse(target); err != nil {
		return nil, err
	}
	if q.url.Host == "" || q.count < 1 {
		return nil, fmt.Errorf("URL %q, count %d: want scheme://host[:port]/path and at least 1", target, q.count)
	}
	return q, nil
}

// runClient asks one after the other and prints each answer, separated by an
// empty line. A request without an answer ends it with an error.
func runClient(ctx context.Context, args []string, out io.Writer) error {
	q, err := parseClient(args)
	if err != nil {
		return err
	}
	ask, end, err := q.asker()
	if err != nil {
		return err
	}
	defer end()
	for i := range q.count {
		a, err := q.one(ctx, ask)
		if err != nil {
			return err
		}
		if i > 0 {
			fmt.Fprintln(out)
		}
		a.print(out, i, q)
	}
	return nil
}

func (q *question) one(ctx context.Context, ask asker) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, q.timeout)
	defer cancel()
	return ask(ctx)
}

type asker func(context.Context) (*answer, error)

// answer is what came back. A gRPC call that went well has status 200.
type answer struct {
	status  int
	proto   string
	headers map[string][]string
	body    string
}

func (a *answer) print(out io.Writer, i int, q *question) {
	line := func(name, value string) { fmt.Fprintf(out, "[%d] %s=%s\n", i, name, value) }
	line("Url", q.url.String())
	line("StatusCode", fmt.Sprint(a.status))
	for _, name := range slices.Sorted(maps.Keys(a.headers)) {
		for _, v := range a.headers[name] {
			line("ResponseHeader", name+":"+v)
		}
	}
	for l := range strings.Lines(a.body) {
		if l = strings.TrimSpace(l); l != "" { // an empty line would be the next answer
			fmt.Fprintf(out, "[%d body] %s\n", i, l)
		}
	}
}

func (q *question) asker() (asker, func(), error) {
	switch q.url.Scheme {
	case "http", "https":
		return q.httpAsker()
	case "grpc":
		return q.grpcAsker()
	}
	return nil, nil, errors.New("scheme " + q.url.Scheme + ": want http, https or grpc")
}

func (q *question) httpAsker() (asker, func(), error) {
	t := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	c := &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return func(ctx context.Context) (*answer, error) {
		req, err := http.NewRequestWithContext(ctx, q.method, q.url.String(), nil)
		if err != nil {
			return nil, err
		}
		for _, h := range q.headers {
			if strings.EqualFold(h[0], "host") {
				req.Host = h[1]
				continue
			}
			req.Header.Add(h[0], h[1])
		}
		resp, err := c.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		return &answer{resp.StatusCode, resp.Proto, resp.Header, string(body)}, err
	}, t.CloseIdleConnections, nil
}
