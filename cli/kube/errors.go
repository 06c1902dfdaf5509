package kube

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Error is an answer of the API server with what to do about it.
type Error struct {
	Verb, Object string // what was tried, such as patch, clusterrole weft-control-plane
	Message      string
	Fix          string
	Cause        error
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s %s: %s", e.Verb, e.Object, e.Message)
}

func (e *Error) Unwrap() error { return e.Cause }

// Explain turns an error of a request into one that says what to do. A nil err is nil.
func (c *Cluster) Explain(verb, object string, err error) error {
	if err == nil {
		return nil
	}
	e := &Error{Verb: verb, Object: object, Message: err.Error(), Cause: err}
	var netErr *net.OpError
	var urlErr *url.Error
	switch {
	case apierrors.IsForbidden(err):
		e.Message = "not allowed: " + forbidden(err)
		e.Fix = "use a context whose user may do this (weft precheck lists all that is missing)"
	case apierrors.IsUnauthorized(err):
		e.Message = fmt.Sprintf("the API server does not know the user of context %q", c.Context)
		e.Fix = "sign in again, or choose another with --context"
	case apierrors.IsConflict(err):
		e.Message = "somebody else set fields of it: " + strings.Join(conflicts(err), "; ")
		e.Fix = "take them back with --force-conflicts, or set what they are through --set"
	case apierrors.IsNotFound(err) && strings.Contains(err.Error(), "could not find the requested resource"):
		e.Message = "the cluster has no such kind"
		e.Fix = "see weft precheck: a custom resource definition is missing or older"
	case apierrors.IsInvalid(err):
		e.Message = "refused: " + err.Error()
	case errors.As(err, &netErr), errors.As(err, &urlErr):
		if errors.As(err, &urlErr) { // its URL says no more than the verb and object
			err = urlErr.Err
		}
		e.Message = fmt.Sprintf("the API server of context %q does not answer: %v", c.Context, err)
		e.Fix = "is it running, and is it the right --context?"
	}
	return e
}

// forbidden keeps what the API server says of user, verb and resource.
func forbidden(err error) string {
	_, msg, ok := strings.Cut(err.Error(), "is forbidden: ")
	if !ok {
		return err.Error()
	}
	return msg
}

// conflicts lists the fields that others own, and who.
func conflicts(err error) []string {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil {
		return []string{err.Error()}
	}
	var out []string
	for _, c := range status.Status().Details.Causes {
		if c.Type == metav1.CauseTypeFieldManagerConflict {
			out = append(out, fmt.Sprintf("%s (%s)", c.Field, strings.TrimPrefix(c.Message, "conflict with ")))
		}
	}
	if len(out) == 0 {
		return []string{err.Error()}
	}
	return out
}

// FixText is the advice of the error.
func (e *Error) FixText() string { return e.Fix }
