package vectord

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Kind says what went wrong in terms that a caller can act on. The server chooses the HTTP status from it.
type Kind uint8

// The kinds of errors. KindInternal is the zero value, so an error of unknown origin is an internal one.
const (
	KindInternal      Kind = iota
	KindInvalid            // the request contradicts the collection or itself: wrong dimension, unknown form
	KindUnprocessable      // well-formed, but a value is outside its range
	KindNotFound           // collection, point or alias does not exist
	KindExists             // the name is taken
	KindTooLarge           // a size limit of the request
	KindOverloaded         // come back after RetryAfter
	KindNoMemory           // the memory budget is spent; reads go on
	KindTimeout            // the deadline passed; the outcome of a write is unknown
	KindClosed             // the server is shutting down, or not the one to ask: see CodeNotLeader
	KindUnsupported        // understood, but not offered by this server
	KindNoSpace            // the disk has no room for it
	KindLimited            // beyond a limit that the collection sets itself
	KindConflict           // contradicts the state that something is in by now
)

func (k Kind) String() string {
	names := [...]string{"internal", "invalid", "unprocessable", "not found", "exists", "too large", "overloaded",
		"no memory", "timeout", "closed", "unsupported", "no space", "limited", "conflict"}
	if int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Error is an error with a kind. Its text names the value that was wrong and is fit to be shown to a client.
type Error struct {
	Kind       Kind
	Text       string
	RetryAfter time.Duration // with KindOverloaded: when a retry may succeed
	Code       Code          // says more than Kind to a program; empty: there is nothing more to say
}

// Code names an error for programs that tell errors of one kind apart.
type Code string

// The codes of tasks, agents and states.
const (
	CodeQueueNotFound     Code = "queue_not_found"
	CodeTaskNotFound      Code = "task_not_found"
	CodeAgentNotFound     Code = "agent_not_found"
	CodeStateNotFound     Code = "state_not_found"
	CodeLeaseLost         Code = "lease_lost"    // the caller does not, or no longer, hold the task
	CodeTaskTerminal      Code = "task_terminal" // the task has ended
	CodeVersionConflict   Code = "version_conflict"
	CodeKeyReused         Code = "idempotency_key_reused" // by another request
	CodeNoEligibleAgent   Code = "no_eligible_agent"
	CodeQueueFull         Code = "queue_full"
	CodeDimensionMismatch Code = "dimension_mismatch"
	CodeEventsCompacted   Code = "events_compacted"
	CodeQueueNotEmpty     Code = "queue_not_empty"
)

// CodeNotLeader is that of what only the leader of a cluster does, asked of another node. It had no effect.
const CodeNotLeader Code = "not_leader"

// Refuse returns an *Error with a code.
func Refuse(kind Kind, code Code, format string, args ...any) error {
	return &Error{Kind: kind, Code: code, Text: fmt.Sprintf(format, args...)}
}

// CodeOf returns the code of err, looking through wrapping.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func (e *Error) Error() string { return e.Text }

// Errorf returns an *Error of the given kind.
func Errorf(kind Kind, format string, args ...any) error {
	return &Error{Kind: kind, Text: fmt.Sprintf(format, args...)}
}

// KindOf returns the kind of err, looking through wrapping. A context's end is a timeout.
func KindOf(err error) Kind {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e.Kind
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return KindTimeout
	}
	return KindInternal
}
