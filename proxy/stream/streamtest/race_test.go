//go:build race

package streamtest_test

// raceDetector: pools drop at random and memory is shadowed, so budgets do not hold.
const raceDetector = true
