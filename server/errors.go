package server

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/valyala/fasthttp"

	"github.com/vectord/vectord"
)

// formError is an error in the form of a request, found before any collection was looked at.
type formError struct {
	place string // "JSON body", "query parameters" or "path parameters"
	err   error
}

func (e *formError) Error() string { return e.err.Error() }
func (e *formError) Unwrap() error { return e.err }

// The places in which a formError can be.
const (
	inBody  = "JSON body"
	inQuery = "query parameters"
	inPath  = "path parameters"
)

// refusal is the answer to a request that was not admitted.
type refusal struct {
	status int
	text   string
	plain  bool // text/plain instead of the envelope
	reason string
}

func (e *refusal) Error() string { return e.text }

// defaultRetryAfter is told to a client that was sent away without a better guess.
const defaultRetryAfter = time.Second

// statusOf chooses the HTTP status of an error and writes the text for the client, with the prefix that Qdrant's clients
// know. The text of an internal error stays in the log.
func statusOf(err error) (status int, text string) {
	var form *formError
	place := ""
	if errors.As(err, &form) {
		place = form.place
	}
	text = strings.ToValidUTF8(err.Error(), "\uFFFD")
	switch vectord.CodeOf(err) { // that have a status of their own
	case vectord.CodeKeyReused, vectord.CodeNoEligibleAgent:
		return fasthttp.StatusUnprocessableEntity, text
	case vectord.CodeEventsCompacted:
		return fasthttp.StatusGone, text
	case vectord.CodeQueueFull:
		return fasthttp.StatusTooManyRequests, "Too many requests: " + text
	}
	switch vectord.KindOf(err) {
	case vectord.KindInvalid:
		if place != "" {
			return fasthttp.StatusBadRequest, "Format error in " + place + ": " + text
		}
		return fasthttp.StatusBadRequest, "Wrong input: " + text
	case vectord.KindUnprocessable:
		if place == "" {
			place = inBody
		}
		return fasthttp.StatusUnprocessableEntity, "Validation error in " + place + ": [" + text + "]"
	case vectord.KindUnsupported, vectord.KindLimited:
		return fasthttp.StatusBadRequest, "Bad request: " + text
	case vectord.KindNotFound:
		return fasthttp.StatusNotFound, "Not found: " + text
	case vectord.KindExists, vectord.KindConflict:
		return fasthttp.StatusConflict, "Wrong input: " + text
	case vectord.KindTooLarge:
		return fasthttp.StatusRequestEntityTooLarge, "Bad request: " + text
	case vectord.KindOverloaded:
		return fasthttp.StatusTooManyRequests, "Too many requests: " + text
	case vectord.KindNoMemory:
		return fasthttp.StatusInsufficientStorage, "Insufficient memory: " + text
	case vectord.KindNoSpace:
		return fasthttp.StatusInsufficientStorage, "Insufficient storage: " + text
	case vectord.KindTimeout:
		return fasthttp.StatusRequestTimeout, "Timeout: " + text
	case vectord.KindClosed:
		return fasthttp.StatusServiceUnavailable, "Service unavailable: " + text
	}
	return fasthttp.StatusInternalServerError, "Service internal error: the server's log has the details"
}

// retryAfter returns the seconds for the Retry-After header of an answer with status 429 or 503, at least 1.
func retryAfter(err error) string {
	wait := retryAfterOf(err)
	if wait == 0 {
		wait = defaultRetryAfter
	}
	return strconv.FormatInt(int64((wait+time.Second-1)/time.Second), 10)
}

// retryAfterOf returns when the error says that a retry may succeed, 0 if it doesn't.
func retryAfterOf(err error) time.Duration {
	var e *vectord.Error
	if errors.As(err, &e) && e.RetryAfter > 0 {
		return e.RetryAfter
	}
	return 0
}

// outOfRange returns the error for a well-formed value that a field cannot take.
func outOfRange(field string, value any, must string) error {
	return vectord.Errorf(vectord.KindUnprocessable, "%s: value %v invalid, must be %s", field, value, must)
}

// missing returns the error for a required field that is absent or null.
func missing(field string) error {
	return &formError{inBody, vectord.Errorf(vectord.KindInvalid, "missing field `%s`", field)}
}

// bodyError turns what the JSON decoder says into an error for the client, which names the place in the body and the value.
func bodyError(err error) error {
	var syntactic *jsontext.SyntacticError
	if errors.As(err, &syntactic) {
		cause := strings.TrimPrefix(syntactic.Err.Error(), "jsontext: ")
		return &formError{inBody, vectord.Errorf(vectord.KindInvalid, "%s%s at byte %d",
			at(syntactic.JSONPointer), cause, syntactic.ByteOffset)}
	}
	var semantic *json.SemanticError
	if !errors.As(err, &semantic) {
		return &formError{inBody, vectord.Errorf(vectord.KindInvalid, "%v", err)}
	}
	var own *vectord.Error
	if errors.As(semantic.Err, &own) {
		return &formError{inBody, &vectord.Error{Kind: own.Kind, Text: at(semantic.JSONPointer) + own.Text}}
	}
	got := describeKind(semantic.JSONKind)
	if len(semantic.JSONValue) > 0 {
		got = excerpt(semantic.JSONValue)
	}
	return &formError{inBody, vectord.Errorf(vectord.KindInvalid, "%sexpected %s, got %s",
		at(semantic.JSONPointer), describe(semantic.GoType), got)}
}

// at writes a JSON pointer the way people write paths, points[3].id, with a colon behind it.
func at(p jsontext.Pointer) string {
	if p == "" {
		return ""
	}
	var b strings.Builder
	for token := range p.Tokens() {
		if _, err := strconv.ParseUint(token, 10, 32); err == nil {
			b.WriteString("[" + token + "]")
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(excerpt([]byte(token)))
	}
	b.WriteString(": ")
	return b.String()
}

var textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()

// describe names the JSON that a Go type is read from.
func describe(t reflect.Type) string {
	if t == nil {
		return "another value"
	}
	if reflect.PointerTo(t).Implements(textUnmarshaler) {
		return "a string"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	case reflect.Int, reflect.Int64:
		return "an integer"
	case reflect.Uint32, reflect.Uint64:
		return "a non-negative integer"
	case reflect.Float32, reflect.Float64:
		return fmt.Sprintf("a number within the range of a %d-bit float", t.Bits())
	case reflect.Slice:
		return "an array"
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Pointer:
		return describe(t.Elem())
	}
	return "another value"
}

func describeKind(k jsontext.Kind) string {
	switch k {
	case 'n':
		return "null"
	case 't', 'f':
		return "a bool"
	case '"':
		return "a string"
	case '0':
		return "a number"
	case '[':
		return "an array"
	case '{':
		return "an object"
	}
	return "another value"
}

// maxExcerpt is how many bytes of a wrong value an error repeats.
const maxExcerpt = 60

// excerpt returns the beginning of b for an error text.
func excerpt(b []byte) string {
	if len(b) == 0 {
		return "nothing"
	}
	if len(b) <= maxExcerpt {
		return string(b)
	}
	cut := maxExcerpt
	for cut > maxExcerpt-utf8.UTFMax && !utf8.RuneStart(b[cut]) {
		cut--
	}
	return string(b[:cut]) + "…"
}
