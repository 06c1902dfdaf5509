//go:build !race

package peermeta

const raceEnabled = false
