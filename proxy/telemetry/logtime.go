package telemetry

import (
	"fmt"
	"strings"

	"weft.mesh/weft/proxy/stream"
)

// isoMillis is Envoy's default: %Y-%m-%dT%H:%M:%E3SZ.
const isoMillis = "%Y-%m-%dT%H:%M:%E3SZ"

// startTime compiles START_TIME(format). Times are UTC. Supported are %Y %m %d %H %M %S %s %E3S %3f %6f %9f %f %z %%.
func startTime(format string) (op, error) {
	if format == "" {
		format = isoMillis
	}
	var parts []timePart
	for format != "" {
		i := strings.IndexByte(format, '%')
		if i < 0 {
			parts = append(parts, timePart{text: format})
			break
		}
		if i > 0 {
			parts = append(parts, timePart{text: format[:i]})
		}
		verb, rest, ok := timeVerb(format[i+1:])
		if !ok {
			return op{}, fmt.Errorf("time format %q: want %%Y %%m %%d %%H %%M %%S %%s %%E3S %%3f %%6f %%9f %%f %%z", format[i:])
		}
		parts = append(parts, timePart{verb: verb})
		format = rest
	}
	return op{value: func(b []byte, i *stream.Info) ([]byte, bool) {
		if i.Start.IsZero() {
			return b, false
		}
		t := clock{i.Start.UTC()}
		for k := range parts {
			if parts[k].text != "" {
				b = append(b, parts[k].text...)
				continue
			}
			b = t.append(b, parts[k].verb)
		}
		return b, true
	}}, nil
}

type timePart struct {
	text string
	verb string
}

func timeVerb(s string) (verb, rest string, ok bool) {
	for _, v := range []string{"E3S", "Y", "m", "d", "H", "M", "S", "s", "3f", "6f", "9f", "f", "z", "%"} {
		if strings.HasPrefix(s, v) {
			return v, s[len(v):], true
		}
	}
	return "", "", false
}
