package vectord

import "context"

type timeoutKey struct{}

// WithRequestedTimeout notes how many seconds a client asks its request to be tried for, which a collection may limit. It does
// not end the context.
func WithRequestedTimeout(ctx context.Context, seconds int) context.Context {
	return context.WithValue(ctx, timeoutKey{}, seconds)
}

// RequestedTimeout returns what WithRequestedTimeout noted; ok is false where the client did not say.
func RequestedTimeout(ctx context.Context) (seconds int, ok bool) {
	seconds, ok = ctx.Value(timeoutKey{}).(int)
	return seconds, ok
}
