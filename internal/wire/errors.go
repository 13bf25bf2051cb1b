package wire

import (
	"errors"
	"strings"
	"time"

	"github.com/vectord/vectord"
)

// CodeOK is the code of an item that was taken.
const CodeOK = "ok"

// The codes of errors that have none of their own, with the status that each has over HTTP.
var kinds = [...]struct {
	status int
	code   string
}{
	vectord.KindInternal:      {500, "internal"},
	vectord.KindInvalid:       {400, "bad_request"},
	vectord.KindUnprocessable: {422, "unprocessable"},
	vectord.KindNotFound:      {404, "not_found"},
	vectord.KindExists:        {409, "already_exists"},
	vectord.KindTooLarge:      {413, "payload_too_large"},
	vectord.KindOverloaded:    {429, "overloaded"},
	vectord.KindNoMemory:      {507, "no_memory"},
	vectord.KindTimeout:       {408, "timeout"},
	vectord.KindClosed:        {503, "draining"},
	vectord.KindUnsupported:   {400, "unsupported"},
	vectord.KindNoSpace:       {507, "no_space"},
	vectord.KindLimited:       {400, "limited"},
	vectord.KindConflict:      {409, "conflict"},
}

// ErrorOf returns the form of an error. The text of an internal one stays with the server.
func ErrorOf(err error) *Error {
	k := vectord.KindOf(err)
	e := &Error{Status: kinds[k].status, Code: kinds[k].code, Text: strings.ToValidUTF8(err.Error(), "\uFFFD")}
	if code := vectord.CodeOf(err); code != "" {
		e.Code = string(code)
	}
	if k == vectord.KindInternal {
		e.Text = "the server's log has the details"
	}
	var own *vectord.Error
	if errors.As(err, &own) && own.RetryAfter > 0 {
		e.RetryAfterMS = max(1, own.RetryAfter.Milliseconds())
	}
	return e
}

// Retriable reports whether the same request may succeed later.
func (e *Error) Retriable() bool { return e.Status == 429 || e.Status == 503 }

// RetryAfter returns how long to wait before; 0 if it does not say.
func (e *Error) RetryAfter() time.Duration {
	return time.Duration(min(max(e.RetryAfterMS, 0), int64(time.Hour/time.Millisecond))) * time.Millisecond
}

// Malformed turns what a decoder says into an error for the client.
func Malformed(t FrameType, err error) error {
	var own *vectord.Error
	if errors.As(err, &own) {
		return &vectord.Error{Kind: own.Kind, Text: t.String() + ": " + own.Text}
	}
	return vectord.Errorf(vectord.KindInvalid, "%s: %v", t, err)
}
