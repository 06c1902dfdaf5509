package cli

import "testing"

func TestTextIsCutToTheTerminal(t *testing.T) {
	tests := []struct {
		name, text    string
		width, height int
		want          string
	}{
		{"what fits stays", "ab\ncd\n", 2, 3, "ab\ncd\n"},
		{"long lines are cut, not wrapped", "abcdef\n", 3, 9, "abc\n"},
		{"characters count, not bytes", "äöüß\n", 3, 9, "äöü\n"},
		{"a colour ends even if its text is cut", "\x1b[31mabcdef\x1b[0mgh\n", 3, 9, "\x1b[31mabc\x1b[0m\n"},
		{"the last row is the cursor's", "1\n2\n3\n4\n", 9, 3, "1\n2\n"},
		{"an unknown size bounds nothing", "abc\nd\n", 0, 0, "abc\nd\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := fit(tt.text, tt.width, tt.height); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
