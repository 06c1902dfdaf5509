package convert

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Limits of what Decode reads.
const (
	MaxFile     = 16 << 20 // bytes of one file
	MaxDocument = 1 << 20  // bytes of one document, as the Kubernetes API server allows
	MaxNodes    = 100_000  // nodes of one document with its aliases expanded
	MaxDepth    = 64       // nesting of one document
)

// document is one YAML document of a file.
type document struct {
	node *yaml.Node
	// offset is added to the line numbers that the parser gives.
	offset int
}

// syntaxError is a document that cannot be read.
type syntaxError struct {
	code, value, msg, hint string
	line, col              int
}

// splitDocuments cuts a file at its "---" lines, which YAML does not allow
// inside a document, so that a bad document does not hide the ones after it.
func splitDocuments(text []byte) []chunk {
	var out []chunk
	start, startLine, line := 0, 0, 0
	for at := 0; at < len(text); line++ {
		end := bytes.IndexByte(text[at:], '\n')
		next := len(text)
		if end >= 0 {
			next = at + end + 1
		}
		if isSeparator(text[at:next]) && at > start {
			out = append(out, chunk{text[start:at], startLine})
			start, startLine = at, line
		}
		at = next
	}
	return append(out, chunk{text[start:], startLine})
}

type chunk struct {
	text []byte
	line int // 0-based line of the file where it starts
}

func isSeparator(line []byte) bool {
	if !bytes.HasPrefix(line, []byte("---")) {
		return false
	}
	return len(line) == 3 || strings.IndexByte(" \t\r\n", line[3]) >= 0
}

// blank tells whether a chunk holds only comments, directives and separators.
func (c chunk) blank() bool {
	for line := range bytes.Lines(c.text) {
		t := bytes.TrimSpace(line)
		if len(t) == 0 || t[0] == '#' || line[0] == '%' || string(t) == "---" || string(t) == "..." {
			continue
		}
		return false
	}
	return true
}

// checkText refuses what no parser should see: too much text, or not UTF-8.
func checkText(text []byte) *syntaxError {
	if len(text) > MaxFile {
		return &syntaxError{code: CodeTooLarge, line: 1, col: 1, value: strconv.Itoa(len(text)) + " bytes",
			msg: fmt.Sprintf("the file is larger than %d bytes", MaxFile), hint: "split it into several files"}
	}
	if utf8.Valid(text) {
		return nil
	}
	line, col := 1, 1
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		if r == utf8.RuneError && n == 1 {
			break
		}
		if col++; r == '\n' {
			line, col = line+1, 1
		}
		text = text[n:]
	}
	return &syntaxError{code: CodeNotUTF8, line: line, col: col, value: fmt.Sprintf("byte 0x%02x", text[0]),
		msg: "the file is not UTF-8", hint: "save it as UTF-8"}
}

// parse reads one chunk. A nil node with a nil error is an empty document.
func (c chunk) parse() (doc *document, serr *syntaxError) {
	if c.blank() {
		return nil, nil
	}
	if len(c.text) > MaxDocument {
		return nil, &syntaxError{code: CodeTooLarge, line: c.line + 1, col: 1, value: strconv.Itoa(len(c.text)) + " bytes",
			msg: fmt.Sprintf("the document is larger than %d bytes", MaxDocument), hint: "split it into several objects"}
	}
	defer func() {
		// The parser is not ours and its input is not trusted: its panic is a bad document, not our end.
		if r := recover(); r != nil {
			doc, serr = nil, &syntaxError{code: CodeInvalidYAML, line: c.line + 1, col: 1, msg: "the document cannot be parsed", hint: "check its syntax"}
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(c.text))
	var n yaml.Node
	if err := dec.Decode(&n); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		return nil, c.explain(err)
	}
	var more yaml.Node
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		if err != nil {
			return nil, c.explain(err)
		}
		return nil, &syntaxError{code: CodeInvalidYAML, line: c.line + more.Line, col: 1,
			msg: "a second document starts without a \"---\" line", hint: "put --- between documents"}
	}
	if n.Kind != yaml.DocumentNode || len(n.Content) != 1 {
		return nil, nil
	}
	return &document{node: n.Content[0], offset: c.line}, nil
}

var anchorName = regexp.MustCompile(`unknown anchor '([^']*)'`)

var errLine = regexp.MustCompile(`line (\d+): *`)

// explain turns the parser's message into a position and a reason.
func (c chunk) explain(err error) *syntaxError {
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 1
	if m := errLine.FindStringSubmatchIndex(msg); m != nil {
		line, _ = strconv.Atoi(msg[m[2]:m[3]])
		msg = msg[:m[0]] + msg[m[1]:]
	}
	if at, ok := c.tabLine(); ok {
		return &syntaxError{code: CodeTab, line: c.line + at, col: 1, value: `\t`, msg: "the line is indented with a tab", hint: "indent with spaces"}
	}
	e := &syntaxError{code: CodeInvalidYAML, line: c.line + line, col: 1, msg: msg, hint: "check indentation, quotes and colons near this line"}
	switch {
	case strings.Contains(msg, "unknown anchor"):
		e.code, e.hint = CodeAlias, "define the anchor (&name) before the alias, in the same document"
		if m := anchorName.FindStringSubmatch(msg); m != nil { // the parser gives no line here
			before, _, _ := bytes.Cut(c.text, []byte("*"+m[1]))
			e.value, e.line = "*"+m[1], c.line+1+bytes.Count(before, []byte("\n"))
		}
	case strings.Contains(msg, "exceeded max depth"):
		e.code, e.hint = CodeTooLarge, "nest less deeply"
	}
	return e
}

// tabLine finds the first line that is indented with a tab.
func (c chunk) tabLine() (int, bool) {
	n := 0
	for line := range bytes.Lines(c.text) {
		n++
		indent := line[:len(line)-len(bytes.TrimLeft(line, " \t"))]
		if bytes.IndexByte(indent, '\t') >= 0 && len(bytes.TrimSpace(line)) > 0 {
			return n, true
		}
	}
	return 0, false
}
