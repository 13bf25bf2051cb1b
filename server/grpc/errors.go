package grpcserver

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/access"
)

// codeOf says by which code each kind of error goes out.
var codeOf = map[vectord.Kind]codes.Code{
	vectord.KindInvalid:       codes.InvalidArgument,
	vectord.KindUnprocessable: codes.InvalidArgument,
	vectord.KindNotFound:      codes.NotFound,
	vectord.KindExists:        codes.AlreadyExists,
	vectord.KindConflict:      codes.FailedPrecondition, // nothing that gRPC offers comes to that so far
	vectord.KindTooLarge:      codes.ResourceExhausted,  // as gRPC itself says where a message is too large
	vectord.KindOverloaded:    codes.ResourceExhausted,
	vectord.KindNoMemory:      codes.ResourceExhausted,
	vectord.KindNoSpace:       codes.ResourceExhausted,
	vectord.KindTimeout:       codes.DeadlineExceeded,
	vectord.KindClosed:        codes.Unavailable,
	vectord.KindUnsupported:   codes.Unimplemented,
	vectord.KindLimited:       codes.InvalidArgument,
}

// denialCodes are those of the refusals of package access.
var denialCodes = map[access.DenialKind]codes.Code{
	access.NoKey:     codes.Unauthenticated,
	access.BadToken:  codes.Unauthenticated,
	access.Forbidden: codes.PermissionDenied,
}

// statusOf chooses the status of an error, nil for none. The text of an internal error stays in the log.
func statusOf(err error) *status.Status {
	var denied *access.Denial
	if errors.As(err, &denied) {
		return status.New(denialCodes[denied.Kind], denied.Text)
	}
	if already, ok := status.FromError(err); ok { // of gRPC, or none
		return already
	}
	if errors.Is(err, context.Canceled) {
		return status.New(codes.Canceled, "the client has given up")
	}
	if code, ok := codeOf[vectord.KindOf(err)]; ok {
		return status.New(code, strings.ToValidUTF8(err.Error(), "\uFFFD"))
	}
	return status.New(codes.Internal, "internal error: the server's log has the details")
}

// defaultRetryAfter is told to a client that was sent away without a better guess.
const defaultRetryAfter = time.Second

// retryAfter returns the seconds after which the same call may succeed, at least 1; again is false where it will not.
func retryAfter(err error) (seconds string, again bool) {
	if vectord.KindOf(err) != vectord.KindOverloaded {
		return "", false
	}
	wait := defaultRetryAfter
	var e *vectord.Error
	if errors.As(err, &e) && e.RetryAfter > 0 {
		wait = e.RetryAfter
	}
	return strconv.FormatInt(int64((wait+time.Second-1)/time.Second), 10), true
}

// outOfRange returns the error for a well-formed value that a field cannot take.
func outOfRange(field string, value any, must string) error {
	return vectord.Errorf(vectord.KindUnprocessable, "%s: value %v invalid, must be %s", field, value, must)
}

// missing returns the error for a required field that is absent.
func missing(field string) error {
	return vectord.Errorf(vectord.KindInvalid, "%s: is missing", field)
}
