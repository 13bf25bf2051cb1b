package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
	"unicode/utf8"

	"github.com/vectord/vectord"
)

// Outcomes of calls that no handler has answered, for errors.Is. Each such error is also a *vectord.Error, for
// errors.As and vectord.KindOf.
var (
	// ErrUnreachable: no handler has seen the call, and none will; it certainly had no effect. The node could not be
	// dialled, refused the connection or the call, or nothing of the call had been written when ctx or the connection ended.
	ErrUnreachable = errors.New("the call was not delivered")
	// ErrUnknown: the call was written, at least in part, and then ctx or the connection ended, or its handler was lost. It
	// may have had its effect, or have it still.
	ErrUnknown = errors.New("the outcome of the call is unknown")
)

// outcomeError is the error of a call that no handler has answered.
type outcomeError struct {
	outcome error // ErrUnreachable or ErrUnknown
	err     *vectord.Error
	cause   error // why, or nil
}

func (e *outcomeError) Error() string { return e.err.Text }

func (e *outcomeError) Unwrap() []error {
	if e.cause == nil {
		return []error{e.outcome, e.err}
	}
	return []error{e.outcome, e.err, e.cause}
}

// unreachable returns the error of a call that had no effect. If cause has a kind of its own, it is the error's too.
// Other causes are those of the network, which may be gone soon.
func unreachable(address string, cause error) error {
	e := &vectord.Error{Kind: vectord.KindOverloaded, RetryAfter: redialMax}
	var own *vectord.Error
	switch {
	case errors.As(cause, &own):
		*e = *own
	case vectord.KindOf(cause) == vectord.KindTimeout:
		e.Kind, e.RetryAfter = vectord.KindTimeout, 0
	}
	e.Text = fmt.Sprintf("node %s was not reached: %v", address, cause)
	return &outcomeError{outcome: ErrUnreachable, err: e, cause: cause}
}

// unknown returns the error of a call that may have had an effect. Its kind is KindTimeout, as that of a log whose
// outcome is unknown.
func unknown(address string, cause error) error {
	text := fmt.Sprintf("call to node %s: the outcome is unknown: %v", address, cause)
	return &outcomeError{outcome: ErrUnknown, err: &vectord.Error{Kind: vectord.KindTimeout, Text: text}, cause: cause}
}

const (
	// errorTextBytes bounds the text of an error that crosses; a longer one is cut.
	errorTextBytes = 8 << 10
	// errorHeadBytes is an error without its code and text: kind, RetryAfter, their lengths.
	errorHeadBytes = 1 + 8 + 1 + 2
	errorBytesMax  = errorHeadBytes + math.MaxUint8 + errorTextBytes
)

// appendError appends an error as it crosses: its kind (1 byte), RetryAfter (8, microseconds), the length of its code (1) and
// of its text (2), the code, the text. An error that wraps a *vectord.Error crosses as that with the text of the
// whole; a context's end as a timeout; any other as an internal one. The numbers of kinds are on the wire and must stay.
func appendError(dst []byte, err error) []byte {
	e := vectord.Error{Kind: vectord.KindOf(err)}
	var own *vectord.Error
	if errors.As(err, &own) {
		e = *own
	}
	text := cut(err.Error(), errorTextBytes)
	code := cut(string(e.Code), math.MaxUint8)
	dst = append(dst, byte(e.Kind))
	dst = binary.BigEndian.AppendUint64(dst, uint64(max(e.RetryAfter, 0)/time.Microsecond))
	dst = append(dst, byte(len(code)))
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(text)))
	dst = append(dst, code...)
	return append(dst, text...)
}

// cut returns s, or what of it fits n bytes without half a rune at its end.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// parseError reads what appendError wrote. The error does not share src.
func parseError(src []byte) (*vectord.Error, error) {
	if len(src) < errorHeadBytes {
		return nil, fmt.Errorf("an error of %d bytes is too short", len(src))
	}
	retry := binary.BigEndian.Uint64(src[1:])
	if retry > uint64(math.MaxInt64/time.Microsecond) {
		return nil, fmt.Errorf("an error with a retry after %d microseconds", retry)
	}
	code, text := int(src[9]), int(binary.BigEndian.Uint16(src[10:]))
	rest := src[errorHeadBytes:]
	if text > errorTextBytes || len(rest) != code+text {
		return nil, fmt.Errorf("an error with a code of %d bytes and a text of %d in %d", code, text, len(rest))
	}
	return &vectord.Error{
		Kind:       vectord.Kind(src[0]),
		RetryAfter: time.Duration(retry) * time.Microsecond,
		Code:       vectord.Code(rest[:code]),
		Text:       string(rest[code:]),
	}, nil
}
