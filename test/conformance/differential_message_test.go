package conformance

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// message is a request or response as it was on the wire, read leniently.
type message struct {
	first    string
	lines    []string // "name: value", names in lower case
	body     string
	trailers []string
}

func (m *message) method() string { s, _, _ := strings.Cut(m.first, " "); return s }

func (m *message) status() int {
	f := strings.Fields(m.first)
	if len(f) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(f[1])
	return n
}

func (m *message) header(name string) string {
	for _, l := range m.lines {
		if v, ok := strings.CutPrefix(l, name+": "); ok {
			return v
		}
	}
	return ""
}

// readMessage reads a message; method is the request's if a response is
// expected. It is nil if the connection ended before it.
func readMessage(r *bufio.Reader, method string) (*message, error) {
	m := &message{}
	first, err := readLine(r)
	if err != nil {
		return nil, err
	}
	m.first = first
	if m.lines, err = readFields(r); err != nil {
		return m, err
	}
	if strings.HasPrefix(first, "HTTP/") {
		if s := m.status(); method == "HEAD" || s < 200 || s == 204 || s == 304 {
			return m, nil
		}
	}
	return m, m.readBody(r)
}

func (m *message) readBody(r *bufio.Reader) error {
	switch {
	case strings.Contains(m.header("transfer-encoding"), "chunked"):
		return m.readChunks(r)
	case m.header("content-length") != "":
		n, err := strconv.Atoi(m.header("content-length"))
		if err != nil {
			return err
		}
		b := make([]byte, n)
		n, err = io.ReadFull(r, b)
		m.body = string(b[:n])
		return err
	case strings.HasPrefix(m.first, "HTTP/"):
		b, err := io.ReadAll(r)
		m.body = string(b)
		return err
	}
	return nil
}

func (m *message) readChunks(r *bufio.Reader) error {
	for {
		l, err := readLine(r)
		if err != nil {
			return err
		}
		size, _, _ := strings.Cut(l, ";")
		n, err := strconv.ParseUint(strings.TrimSpace(size), 16, 31)
		if err != nil {
			return err
		}
		if n == 0 {
			m.trailers, err = readFields(r)
			return err
		}
		b := make([]byte, n+2)
		if _, err := io.ReadFull(r, b); err != nil {
			return err
		}
		m.body += string(b[:n])
	}
}

func readLine(r *bufio.Reader) (string, error) {
	l, err := r.ReadString('\n')
	if err != nil {
		if l != "" && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return "", err
	}
	return strings.TrimRight(l, "\r\n"), nil
}

func readFields(r *bufio.Reader) ([]string, error) {
	var out []string
	for {
		l, err := readLine(r)
		if err != nil || l == "" {
			return out, err
		}
		name, value, _ := strings.Cut(l, ":")
		out = append(out, strings.ToLower(name)+": "+strings.Trim(value, " \t"))
	}
}

// varying are values that differ from request to request: their form is compared.
var varying = []struct {
	form *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`^date: .*GMT$`), "date: D"},
	{regexp.MustCompile(`^x-envoy-upstream-service-time: \d+$`), "x-envoy-upstream-service-time: N"},
	{regexp.MustCompile(`^x-request-id: [0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`), "x-request-id: UUID"},
	{regexp.MustCompile(`^traceparent: 00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$`), "traceparent: T"},
	{regexp.MustCompile(`^x-b3-(traceid|spanid): [0-9a-f]{16,32}$`), "x-b3-$1: B"},
	{regexp.MustCompile(`(?i)^connection: (keep-alive, )?upgrade$`), "connection: upgrade"},
	{regexp.MustCompile(`^set-cookie: seat="[0-9a-f]+"`), `set-cookie: seat="N"`},
}

// text is the message with sorted fields, comparable between two proxies.
// Lines with one name keep their order.
func (m *message) text() string {
	var w strings.Builder
	first := m.first
	if p := strings.SplitN(first, " ", 3); strings.HasPrefix(first, "HTTP/") && len(p) > 1 {
		first = p[0] + " " + p[1] // the reason says nothing
	}
	fmt.Fprintln(&w, first)
	for _, l := range sortedFields(m.lines) {
		fmt.Fprintln(&w, l)
	}
	fmt.Fprintf(&w, "body %q\n", m.body)
	for _, l := range sortedFields(m.trailers) {
		fmt.Fprintln(&w, "trailer", l)
	}
	return w.String()
}

func sortedFields(in []string) []string {
	out := slices.Clone(in)
	for i, l := range out {
		for _, v := range varying {
			l = v.form.ReplaceAllString(l, v.with)
		}
		out[i] = l
	}
	name := func(l string) string { n, _, _ := strings.Cut(l, ":"); return n }
	slices.SortStableFunc(out, func(a, b string) int { return strings.Compare(name(a), name(b)) })
	return out
}
