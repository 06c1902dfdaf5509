package hcm

import (
	"bytes"
	"net/url"
	"path"
	"strings"
	"testing"

	"weft.mesh/weft/proxy/config"
)

func TestNormalise(t *testing.T) {
	base := pathOptions{normalise: true}
	merge := pathOptions{normalise: true, merge: true}
	decode := pathOptions{normalise: true, merge: true, slashes: config.SlashesUnescapeForward}
	for _, c := range []struct {
		name, in string
		o        pathOptions
		want     string
		res      pathResult
	}{
		{"a plain path", "/a/b?c=/../d", base, "/a/b?c=/../d", pathSame},
		{"a dot in a name", "/a.b/.c/..d", base, "/a.b/.c/..d", pathSame},
		{"dot segments", "/a/./b/../c", base, "/a/c", pathChanged},
		{"dot segments above the root", "/../../a", base, "/a", pathChanged},
		{"dots with a parameter", "/x/..;a=b/admin", base, "/admin", pathChanged},
		{"a dot with a parameter", "/x/.;/admin", base, "/x/admin", pathChanged},
		{"escaped dots with a parameter", "/x/%2e%2e;/admin", base, "/admin", pathChanged},
		{"a segment with a parameter", "/a/b;c/;d/...;e/a.;f", base, "/a/b;c/;d/...;e/a.;f", pathSame},
		{"a trailing dot", "/a/.", base, "/a/", pathChanged},
		{"trailing dots", "/a/b/..", base, "/a/", pathChanged},
		{"only dots", "/..", base, "/", pathChanged},
		{"escaped dots", "/a/%2e%2E/b", base, "/b", pathChanged},
		{"half escaped dots", "/a/.%2e/b", base, "/b", pathChanged},
		{"dots and a query", "/a/../b?x=%2e", base, "/b?x=%2e", pathChanged},
		{"escaped letters", "/%61dmin", base, "/admin", pathChanged},
		{"other escapes stay, in their case", "/a%3f%3F%2f", base, "/a%3f%3F%2f", pathSame},
		{"characters that no path has", "/a\"<>^`{|}?\"", base, "/a%22%3C%3E%5E%60%7B%7C%7D?\"", pathChanged},
		{"a broken escape stays", "/a%2", base, "/a%2", pathSame},
		{"backslashes", `/a\..\b`, base, "/b", pathChanged},
		{"slashes are kept", "//admin", base, "//admin", pathSame},
		{"slashes are kept beside dots", "/a//./b", base, "/a//b", pathChanged},
		{"slashes merged", "//a///b", merge, "/a/b", pathChanged},
		{"slashes in a query are not", "/a?b=//c", merge, "/a?b=//c", pathSame},
		{"escaped slashes decoded", "/a%2Fb%5cc", decode, "/a/b/c", pathChanged},
		{"escaped slashes decoded and merged", "/a%2F/b", decode, "/a/b", pathChanged},
		{"escaped slashes refused", "/a%2fb", pathOptions{slashes: config.SlashesReject}, "", pathBad},
		{"escaped slashes redirected", "/a%2fb?x", pathOptions{slashes: config.SlashesUnescapeRedirect}, "/a/b?x", pathRedirect},
		{"nothing to redirect", "/ab", pathOptions{slashes: config.SlashesUnescapeRedirect}, "/ab", pathSame},
		{"a zero byte", "/a%00", base, "", pathBad},
		{"a control character", "/a\x01", base, "", pathBad},
	} {
		t.Run(c.name, func(t *testing.T) {
			prefix := []byte("kept")
			out, res := normalise(prefix, []byte(c.in), c.o)
			got := c.in
			if res == pathChanged || res == pathRedirect {
				got = string(out[len(prefix):])
			}
			if res != c.res || res != pathBad && got != c.want {
				t.Errorf("%q: %q (%d), want %q (%d)", c.in, got, res, c.want, c.res)
			}
			if string(out[:4]) != "kept" {
				t.Error("what was in the buffer is gone")
			}
		})
	}
}

// FuzzNormalise compares with the standard library where both agree on what is right, and holds to what must always be true.
func FuzzNormalise(f *testing.F) {
	for _, s := range []string{"/", "/a/../b", "/%2e%2e/x", "//a/./b//", `/\..\x`, "/a%2fb?c", "/a%00", "/.%2E/"} {
		f.Add(s)
	}
	o := pathOptions{normalise: true, merge: true, slashes: config.SlashesUnescapeForward}
	f.Fuzz(func(t *testing.T, in string) {
		if !strings.HasPrefix(in, "/") {
			return
		}
		out, res := normalise(nil, []byte(in), o)
		if res == pathBad {
			return
		}
		if res == pathSame {
			out = []byte(in)
		}
		p, _, _ := bytes.Cut(out, []byte("?"))
		if len(p) == 0 || p[0] != '/' || bytes.Contains(p, []byte("//")) || bytes.IndexByte(p, '\\') >= 0 {
			t.Fatalf("%q became %q", in, out)
		}
		for _, seg := range strings.Split(string(p), "/") {
			if seg == "." || seg == ".." {
				t.Fatalf("%q became %q, with dot segments", in, out)
			}
		}
		again, res := normalise(nil, out, o)
		if res == pathChanged && strings.Count(string(p), "%") == 0 {
			t.Fatalf("%q became %q, then %q", in, out, again)
		}
		raw, _, _ := strings.Cut(in, "?")
		if strings.ContainsAny(raw, "\\%") {
			return
		}
		if u, err := url.PathUnescape(raw); err == nil {
			want := path.Clean(u)
			if want != "/" && (strings.HasSuffix(raw, "/") || strings.HasSuffix(raw, "/.") || strings.HasSuffix(raw, "/..")) {
				want += "/"
			}
			if string(p) != want {
				t.Fatalf("%q became %q, want %q", in, p, want)
			}
		}
	})
}
