package translate

import (
	"regexp"
	"testing"
)

func TestPathTemplates(t *testing.T) {
	for _, tt := range []struct {
		template string
		fits     []string
		not      []string
	}{
		{"/a/{*}/b", []string{"/a/x/b", "/a/x.y=z/b"}, []string{"/a//b", "/a/x/y/b", "/a/x/b/", "/a/b", "/x/a/x/b"}},
		{"/a/{**}", []string{"/a/", "/a/b", "/a/b/c/"}, []string{"/a", "/ab", "/b/a/c"}},
		{"/{*}/v1.0/{**}", []string{"/x/v1.0/", "/x/v1.0/y/z"}, []string{"/x/v1x0/y", "/x/y/v1.0/z", "//v1.0/x"}},
	} {
		re := regexp.MustCompile(`\A(?:` + pathTemplate(tt.template) + `)\z`)
		for _, p := range tt.fits {
			if !re.MatchString(p) {
				t.Errorf("%s does not fit %s", p, tt.template)
			}
		}
		for _, p := range tt.not {
			if re.MatchString(p) {
				t.Errorf("%s fits %s", p, tt.template)
			}
		}
	}
}
