//go:build race

package netio_test

// raceDetector: pools drop at random and memory is shadowed, so budgets do not hold.
const raceDetector = true
