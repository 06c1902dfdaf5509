package telemetry

import (
	"strconv"
	"time"
)

// clock appends parts of a time without the cost of time.AppendFormat's parsing.
type clock struct{ time.Time }

func (t clock) append(b []byte, verb string) []byte {
	switch verb {
	case "Y":
		return digits(b, t.Year(), 4)
	case "m":
		return digits(b, int(t.Month()), 2)
	case "d":
		return digits(b, t.Day(), 2)
	case "H":
		return digits(b, t.Hour(), 2)
	case "M":
		return digits(b, t.Minute(), 2)
	case "S":
		return digits(b, t.Second(), 2)
	case "E3S":
		b = append(digits(b, t.Second(), 2), '.')
		return digits(b, t.Nanosecond()/1e6, 3)
	case "s":
		return strconv.AppendInt(b, t.Unix(), 10)
	case "3f":
		return digits(b, t.Nanosecond()/1e6, 3)
	case "6f":
		return digits(b, t.Nanosecond()/1e3, 6)
	case "9f", "f":
		return digits(b, t.Nanosecond(), 9)
	case "z":
		return append(b, "+0000"...)
	}
	return append(b, verb...) // "%"
}

// digits appends v with leading zeros.
func digits(b []byte, v, width int) []byte {
	var d [10]byte
	for i := width - 1; i >= 0; i-- {
		d[i] = byte('0' + v%10)
		v /= 10
	}
	return append(b, d[:width]...)
}
