package hcm

import "testing"

func TestStandardMethodsInAnotherCaseAreRefused(t *testing.T) {
	for method, want := range map[string]bool{
		"GET": false, "DELETE": false, "FETCH": false, "fetch": false, "M-SEARCH": false, "getx": false,
		"delete": true, "Delete": true, "gET": true, "patch": true,
	} {
		if got := disguised([]byte(method)); got != want {
			t.Errorf("disguised(%s) = %v, want %v", method, got, want)
		}
	}
}
