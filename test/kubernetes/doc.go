// Package kubernetes has the tests of Weft on a real cluster: run them with
// `make test-kubernetes`. What they use is in kubetest and testbed.
package kubernetes
