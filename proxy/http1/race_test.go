//go:build race

package http1

// raceDetector: pools drop at random and memory is shadowed, so budgets do not hold.
const raceDetector = true
