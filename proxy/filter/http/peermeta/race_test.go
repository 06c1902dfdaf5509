//go:build race

package peermeta

const raceEnabled = true
