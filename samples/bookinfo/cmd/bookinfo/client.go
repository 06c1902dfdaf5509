package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Exit codes of the client, with curl's numbers. Any HTTP answer is a success.
const (
	exitNoSuchHost = 6
	exitNoAnswer   = 7 // refused, or broken before an answer came
	exitTimeout    = 28
)

const (
	clientBody    = 1 << 20 // of each answer, kept
	clientMaxReqs = 1_000_000
	clientMaxConc = 1000
)

// clientOptions are the flags of "bookinfo client".
type clientOptions struct {
	url      string
	requests int
	parallel int
	headers  http.Header
	host     string
	method   string
	data     string
	timeout  time.Duration
	output   string
	fresh    bool
	include  bool
}

// result is what one request came to.
type result struct {
	Status   int               `json:"status,omitempty"` // 0: no answer
	Error    string            `json:"error,omitempty"`
	Cause    string            `json:"cause,omitempty"` // of the error, without addresses: the same for like errors
	Millis   float64           `json:"milliseconds"`
	Headers  map[string]string `json:"headers,omitempty"`
	Body     string            `json:"body,omitempty"`
	exitCode int
	proto    string
}

func runClient(ctx context.Context, e env) int {
	o, err := parseClient(e)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintf(e.stderr, "bookinfo client: %v\n", err)
		return exitUsage
	}
	results := o.run(ctx)
	if err := o.print(e.stdout, results); err != nil {
		fmt.Fprintf(e.stderr, "bookinfo client: print the result: %v\n", err)
		return exitFailure
	}
	code := 0
	for _, r := range results {
		if r.Error != "" && code == 0 {
			code = r.exitCode
			fmt.Fprintf(e.stderr, "bookinfo client: %s\n", r.Error)
		}
	}
	return code
}

func parseClient(e env) (*clientOptions, error) {
	o := &clientOptions{headers: http.Header{}}
	f := flag.NewFlagSet("client", flag.ContinueOnError)
	f.SetOutput(e.stderr)
	f.Usage = func() {
		fmt.Fprint(e.stderr, "usage: bookinfo client [flags] URL\n\nExit code: 0 for any HTTP answer; else, of the first failure, 6 no such host, 7 no connection\nor no answer, 28 timeout.\n\n")
		f.PrintDefaults()
	}
	f.IntVar(&o.requests, "n", 1, "number of `requests`")
	f.IntVar(&o.parallel, "c", 1, "`requests` at the same time")
	f.Func("H", "`header` to send, as \"name: value\"; may be given more than once", o.addHeader)
	f.StringVar(&o.method, "X", "", "`method`; the default is GET, or POST with -d")
	f.StringVar(&o.data, "d", "", "`body` to send, as a form unless -H says otherwise")
	f.DurationVar(&o.timeout, "timeout", 30*time.Second, "for each request, all together")
	f.StringVar(&o.output, "o", "", "what to print: body, status, summary or json (default: body, and summary for more than one request)")
	f.BoolVar(&o.fresh, "fresh", false, "a new connection for each request")
	f.BoolVar(&o.include, "i", false, "print status and headers before the body")
	if err := f.Parse(e.args[1:]); err != nil {
		return nil, err
	}
	if f.NArg() != 1 {
		return nil, fmt.Errorf("give one URL, got %d", f.NArg())
	}
	o.url = f.Arg(0)
	return o, o.check()
}

func (o *clientOptions) addHeader(s string) error {
	name, value, ok := strings.Cut(s, ":")
	name, value = strings.TrimSpace(name), strings.TrimSpace(value)
	if !ok || name == "" {
		return fmt.Errorf("header %q: want \"name: value\"", s)
	}
	if strings.EqualFold(name, "host") {
		o.host = value
		return nil
	}
	o.headers.Add(name, value)
	return nil
}

func (o *clientOptions) check() error {
	if !strings.Contains(o.url, "://") {
		o.url = "http://" + o.url
	}
	if u, err := url.Parse(o.url); err != nil || u.Scheme != "http" || u.Host == "" {
		return fmt.Errorf("URL %q: want http://host[:port]/path", o.url)
	}
	if o.requests < 1 || o.requests > clientMaxReqs {
		return fmt.Errorf("-n %d: want 1 to %d", o.requests, clientMaxReqs)
	}
	if o.parallel < 1 || o.parallel > clientMaxConc {
		return fmt.Errorf("-c %d: want 1 to %d", o.parallel, clientMaxConc)
	}
	if o.timeout <= 0 {
		return fmt.Errorf("-timeout %v: want more than nothing", o.timeout)
	}
	if o.output == "" {
		o.output = "body"
		if o.requests > 1 {
			o.output = "summary"
		}
	}
	if !slices.Contains([]string{"body", "status", "summary", "json"}, o.output) {
		return fmt.Errorf("-o %q: want body, status, summary or json", o.output)
	}
	if o.method == "" {
		o.method = http.MethodGet
		if o.data != "" {
			o.method = http.MethodPost
		}
	}
	if o.data != "" && o.headers.Get("Content-Type") == "" {
		o.headers.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return nil
}

// run makes all requests and returns their results in the order they were started.
func (o *clientOptions) run(ctx context.Context) []result {
	client := &http.Client{
		Transport: &http.Transport{
			MaxIdleConnsPerHost: o.parallel,
			DisableKeepAlives:   o.fresh,
			DisableCompression:  true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	defer client.CloseIdleConnections()
	results := make([]result, o.requests)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(o.parallel, o.requests) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(results) {
					return
				}
				start := time.Now()
				results[i] = o.once(ctx, client)
				results[i].Millis = float64(time.Since(start).Microseconds()) / 1000
			}
		})
	}
	wg.Wait()
	return results
}

func (o *clientOptions) once(ctx context.Context, client *http.Client) result {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	var body io.Reader
	if o.data != "" {
		body = strings.NewReader(o.data)
	}
	req, err := http.NewRequestWithContext(ctx, o.method, o.url, body)
	if err != nil {
		return result{Error: err.Error(), Cause: "bad request", exitCode: exitUsage}
	}
	req.Header = o.headers.Clone()
	req.Host = o.host
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", "bookinfo-client")
	}
	resp, err := client.Do(req)
	if err != nil {
		return result{Error: err.Error(), Cause: cause(err), exitCode: exitCode(err)}
	}
	defer resp.Body.Close()
	r := result{Status: resp.StatusCode, proto: resp.Proto, Headers: map[string]string{}}
	for name, values := range resp.Header {
		r.Headers[strings.ToLower(name)] = strings.Join(values, ", ")
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, clientBody))
	r.Body = string(data)
	if err != nil {
		r.Error, r.Cause, r.exitCode = "read the answer: "+err.Error(), cause(err), exitCode(err)
	}
	return r
}

// exitCode names a failure as curl does.
func exitCode(err error) int {
	if dns, ok := errors.AsType[*net.DNSError](err); ok && !dns.IsTimeout {
		return exitNoSuchHost // curl's also for a name server that fails
	}
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return exitTimeout
	}
	return exitNoAnswer
}

// cause names a failure in a few words, without addresses.
func cause(err error) string {
	if no, ok := errors.AsType[syscall.Errno](err); ok {
		return no.Error()
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok && !dns.IsTimeout && !dns.IsNotFound {
		return "name server: " + dns.Err
	}
	switch exitCode(err) {
	case exitNoSuchHost:
		return "no such host"
	case exitTimeout:
		return "timeout"
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "connection closed before the answer was complete"
	}
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}
