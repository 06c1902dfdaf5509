package corpus

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// testCase is one case of the corpus; see the package comment.
type testCase struct {
	file, name string
	on         string
	send       [][]byte
	head       []pair // HTTP/2
	data       [][]byte
	trailers   []pair
	response   []byte
	answer     *answer2 // instead of response, on the listener up2
	then       string
	statuses   []string
	end        string
	body       *string
	upstream   []string
	absent     []string
	present    []string
	hidden     []string
	conns      int
	note       string
	laxer      string
}

type pair struct{ name, value string }

func (c *testCase) http2() bool { return c.head != nil }

// responds tells whether the case is about a response.
func (c *testCase) responds() bool { return c.response != nil || c.answer != nil }

// load reads the whole corpus.
func load(t *testing.T) []*testCase {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no corpus: %v", err)
	}
	var all []*testCase
	seen := map[string]bool{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		cases, err := parseFile(filepath.Base(file), string(b))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range cases {
			if seen[c.name] {
				t.Fatalf("%s: two cases named %q", file, c.name)
			}
			seen[c.name] = true
		}
		all = append(all, cases...)
	}
	return all
}

func parseFile(file, text string) ([]*testCase, error) {
	var all []*testCase
	var c *testCase
	for i, line := range strings.Split(text, "\n") {
		if name, ok := strings.CutPrefix(line, "== "); ok {
			c = &testCase{file: file, name: strings.TrimSpace(name), on: "plain", conns: -1}
			all = append(all, c)
			continue
		}
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, ok := strings.Cut(line, ":")
		if !ok || c == nil {
			return nil, fmt.Errorf("%s:%d: %q is no line of a case", file, i+1, line)
		}
		if err := c.set(key, strings.TrimPrefix(value, " ")); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, i+1, err)
		}
	}
	for _, c := range all {
		if err := c.check(); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", file, c.name, err)
		}
	}
	return all, nil
}

func (c *testCase) set(key, v string) (err error) {
	var raw []byte
	switch key {
	case "send", "data", "response", "body", "rdata":
		if raw, err = unescape(v); err != nil {
			return err
		}
	}
	if key[0] == 'r' && key != "response" && c.answer == nil {
		c.answer = &answer2{}
	}
	switch key {
	case "on":
		c.on = v
	case "rinterim":
		return addPair(&c.answer.interim, v)
	case "rh":
		return addPair(&c.answer.head, v)
	case "rdata":
		c.answer.data = append(c.answer.data, raw)
	case "rtrailer":
		return addPair(&c.answer.trailers, v)
	case "rend":
		c.answer.end = v
	case "send":
		c.send = append(c.send, raw)
	case "h":
		return addPair(&c.head, v)
	case "trailer":
		return addPair(&c.trailers, v)
	case "data":
		c.data = append(c.data, raw)
	case "response":
		c.response = append(c.response, raw...)
	case "then":
		c.then = v
	case "client":
		f := strings.Fields(v)
		if len(f) > 0 && (f[len(f)-1] == "keep" || f[len(f)-1] == "close") {
			c.end, f = f[len(f)-1], f[:len(f)-1]
		}
		c.statuses = f
	case "body":
		s := string(raw)
		c.body = &s
	case "upstream":
		c.upstream = append(c.upstream, v)
	case "absent":
		c.absent = append(c.absent, v)
	case "present":
		c.present = append(c.present, v)
	case "hidden":
		c.hidden = append(c.hidden, v)
	case "conns":
		c.conns, err = strconv.Atoi(v)
	case "note":
		c.note = v
	case "laxer":
		c.laxer = v
	default:
		return fmt.Errorf("no line is called %q", key)
	}
	return err
}

func addPair(to *[]pair, v string) error {
	i := strings.IndexByte(v, '=')
	if i < 0 {
		return fmt.Errorf("%q has no =", v)
	}
	name, err := unescape(v[:i])
	if err != nil {
		return err
	}
	value, err := unescape(v[i+1:])
	*to = append(*to, pair{string(name), string(value)})
	return err
}

func (c *testCase) check() error {
	switch {
	case (c.send == nil) == (c.head == nil):
		return fmt.Errorf("want either send or h")
	case !c.http2() && c.end == "":
		return fmt.Errorf("client must end in keep or close")
	case c.http2() && len(c.statuses) == 0:
		return fmt.Errorf("client is missing")
	case (c.answer != nil) != (c.on == "up2"):
		return fmt.Errorf("an upstream's HTTP/2 frames and on: up2 belong together")
	case len(c.upstream) == 0:
		return fmt.Errorf("upstream is missing")
	case len(c.upstream) > 1 && slices.Contains(c.upstream, "nothing"):
		return fmt.Errorf("upstream is nothing and something")
	case c.then != "" && c.then != "close" && c.then != "early" && (c.then != "pause" || !c.http2()):
		return fmt.Errorf("then: %q", c.then)
	case c.note == "":
		return fmt.Errorf("note is missing")
	}
	return nil
}

// unescape undoes the escapes of the package comment.
func unescape(s string) ([]byte, error) {
	var out []byte
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			out = append(out, s[i])
			continue
		}
		i++
		if i == len(s) {
			return nil, fmt.Errorf("%q ends in a backslash", s)
		}
		switch s[i] {
		case 'r':
			out = append(out, '\r')
		case 'n':
			out = append(out, '\n')
		case 't':
			out = append(out, '\t')
		case '0':
			out = append(out, 0)
		case '\\':
			out = append(out, '\\')
		case 'x':
			if i+2 >= len(s) {
				return nil, fmt.Errorf("%q ends in an escape", s)
			}
			n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil {
				return nil, err
			}
			out = append(out, byte(n))
			i += 2
		case '(':
			end := strings.IndexByte(s[i:], ')')
			star := strings.LastIndexByte(s[:i+max(end, 0)], '*')
			if end < 0 || star < i {
				return nil, fmt.Errorf("%q: want \\(text*count)", s)
			}
			n, err := strconv.Atoi(s[star+1 : i+end])
			if err != nil {
				return nil, err
			}
			piece, err := unescape(s[i+1 : star])
			if err != nil {
				return nil, err
			}
			out = append(out, strings.Repeat(string(piece), n)...)
			i += end
		default:
			return nil, fmt.Errorf("%q: unknown escape \\%c", s, s[i])
		}
	}
	return out, nil
}
