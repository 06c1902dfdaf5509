package cli

import (
	"strings"
	"unicode/utf8"
)

// fit cuts text to a terminal: lines that would wrap push others off the top.
// The last row stays empty, for the cursor. Sizes below 1 do not bound.
func fit(text string, width, height int) string {
	var b strings.Builder
	n := 0
	for l := range strings.Lines(text) {
		if n++; height > 0 && n >= height {
			break
		}
		b.WriteString(clip(strings.TrimSuffix(l, "\n"), width) + "\n")
	}
	return b.String()
}

// clip cuts a line after width visible characters; escape sequences have no
// width and are all kept, so that no colour goes on behind the cut.
func clip(line string, width int) string {
	if width < 1 || visible(line) <= width {
		return line
	}
	var b strings.Builder
	for seen := 0; line != ""; {
		if strings.HasPrefix(line, "\x1b[") {
			if end := strings.IndexAny(line, "mHJKhl"); end >= 0 {
				b.WriteString(line[:end+1])
				line = line[end+1:]
				continue
			}
		}
		r, size := utf8.DecodeRuneInString(line)
		if seen < width {
			b.WriteRune(r)
			seen++
		}
		line = line[size:]
	}
	return b.String()
}
