package grpcserver

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"runtime/debug"
	"strings"
	"time"

	"github.com/qdrant/go-client/qdrant"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/access"
)

// method is one method of a service. handle calls receive once, with the message to fill.
type method struct {
	label  string // as metrics and logs name it
	rule   rule
	handle func(ctx context.Context, receive func(any) error) (any, error)
}

// call is one call on its way through the server. It belongs to the goroutine that serves it, and travels in the context.
type call struct {
	server         *Server
	caller         access.Caller // who asks; the zero value where the method is open
	collection     string        // that the message names, an alias at most if the caller may do the same with every collection
	idempotencyKey string
}

type callKey struct{}

func callOf(ctx context.Context) *call { return ctx.Value(callKey{}).(*call) }

// authorize checks the caller's permission for a collection that a message names besides the one that it is for, and returns
// the name to go on with (see access.Authorizer.Authorize).
func (c *call) authorize(collection string, needed access.Permission) (name string, err error) {
	if err := vectord.CheckCollectionName(collection); err != nil {
		return "", err
	}
	return c.server.authorizer.Authorize(&c.caller, needed, access.ScopeCollection, collection)
}

// handlerOf returns what takes calls of m the whole way.
func (s *Server) handlerOf(m *method) grpc.StreamHandler {
	return func(_ any, stream grpc.ServerStream) error {
		start := time.Now()
		s.metrics.inFlight.Inc()
		defer s.metrics.inFlight.Dec()
		c := &call{server: s}
		err := s.admitAndRun(m, c, stream, start)
		answer := statusOf(err)
		switch answer.Code() {
		case codes.Internal:
			s.log.Error("call failed", "method", m.label, "error", err)
		case codes.ResourceExhausted:
			if wait, again := retryAfter(err); again {
				stream.SetTrailer(metadata.Pairs("retry-after", wait))
			}
		}
		took := time.Since(start)
		s.metrics.answered(m.label, answer.Code(), took)
		if s.log.Enabled(stream.Context(), slog.LevelDebug) {
			s.log.Debug("call", "method", m.label, "collection", c.collection, "code", answer.Code().String(), "took", took,
				"credential", c.caller.Credential(), "subject", c.caller.Subject())
		}
		return answer.Err()
	}
}

// admitAndRun checks what is to be checked before the message is received, in its fixed order, and then calls the method. A
// panic of the method costs the client an answer of Internal, and the others nothing.
func (s *Server) admitAndRun(m *method, c *call, stream grpc.ServerStream, start time.Time) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic in a method", "method", m.label, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	ctx := stream.Context()
	if m.rule.needs != access.Open { // who asks for the server's health has an answer even when it is full
		defer s.calls.Add(-1)
		if s.calls.Add(1) > int64(s.options.MaxConcurrentCalls) {
			return vectord.Errorf(vectord.KindOverloaded, "more than %d calls at the same time", s.options.MaxConcurrentCalls)
		}
		if c.caller, err = s.authorizer.Authenticate(credential(ctx)); err != nil {
			return err
		}
		if m.rule.scope != access.ScopeCollection {
			if _, err := s.authorizer.Authorize(&c.caller, m.rule.needs, m.rule.scope, ""); err != nil {
				return err
			}
		}
	}
	if c.idempotencyKey = first(ctx, "idempotency-key"); len(c.idempotencyKey) > maxIdempotencyKeyBytes {
		return vectord.Errorf(vectord.KindInvalid, "idempotency-key: %d bytes, at most %d are accepted", len(c.idempotencyKey), maxIdempotencyKeyBytes)
	}
	limited := &limitedContext{Context: context.WithValue(ctx, callKey{}, c)}
	defer limited.release()
	answer, err := m.handle(limited, func(message any) error {
		if err := s.receive(stream, message); err != nil {
			return err
		}
		return c.admit(m, message.(proto.Message), limited, start)
	})
	if err != nil {
		return err
	}
	setTime(answer.(proto.Message), time.Since(start))
	return stream.SendMsg(answer)
}

// limitedContext is the context of a method, whose deadline may come nearer when its message has been read: the method
// looks at it afterwards only.
type limitedContext struct {
	context.Context
	cancel context.CancelFunc
}

func (l *limitedContext) limit(deadline time.Time) {
	l.Context, l.cancel = context.WithDeadline(l.Context, deadline)
}

func (l *limitedContext) release() {
	if l.cancel != nil {
		l.cancel()
	}
}

// receive reads the message of a call.
func (s *Server) receive(stream grpc.ServerStream, message any) error {
	ctx := stream.Context()
	select {
	case s.receiving <- struct{}{}:
	case <-ctx.Done():
		return vectord.Errorf(vectord.KindOverloaded, "%d messages are being received, which is all that there is memory for", cap(s.receiving))
	}
	defer func() { <-s.receiving }()
	return stream.RecvMsg(message)
}

// admit finds out whether the caller may do what the message asks for, and how long that may take.
func (c *call) admit(m *method, message proto.Message, ctx *limitedContext, start time.Time) error {
	if named, ok := message.(interface{ GetCollectionName() string }); ok && m.rule.scope == access.ScopeCollection {
		name, err := c.authorize(named.GetCollectionName(), m.rule.needs)
		if err != nil {
			return err
		}
		c.collection = name
	} else if m.rule.scope == access.ScopeCollection {
		return fmt.Errorf("%s is for a collection, and its message names none", m.label)
	}
	if keyed, ok := message.(shardKeyed); ok {
		if err := noShardKey(keyed); err != nil {
			return err
		}
	}
	// The fields are looked up by name, as messages that have one have no interface in common: some give a timeout whose
	// absence is 0.
	r := message.ProtoReflect()
	if field := r.Descriptor().Fields().ByName("timeout"); field != nil && r.Has(field) {
		seconds := r.Get(field).Uint()
		if seconds < 1 {
			return outOfRange("timeout", seconds, "1 or larger")
		}
		ctx.limit(start.Add(time.Duration(min(seconds, uint64(longTimeout/time.Second))) * time.Second))
		ctx.Context = vectord.WithRequestedTimeout(ctx.Context, int(min(seconds, math.MaxInt32)))
	}
	return nil
}

// shardKeyed is a message that may say which shards it is for.
type shardKeyed interface {
	GetShardKeySelector() *qdrant.ShardKeySelector
}

func noShardKey(m shardKeyed) error {
	if len(m.GetShardKeySelector().GetShardKeys()) > 0 {
		return vectord.Errorf(vectord.KindUnsupported, "shard_key_selector: not offered by this server")
	}
	return nil
}

// setTime fills the field "time" of an answer, if it has one, with seconds.
func setTime(answer proto.Message, took time.Duration) {
	r := answer.ProtoReflect()
	if field := r.Descriptor().Fields().ByName("time"); field != nil {
		r.Set(field, protoreflect.ValueOfFloat64(took.Seconds()))
	}
}

// credential returns the key or token that a call carries, in the metadata api-key or as a bearer token, or nothing.
func credential(ctx context.Context) string {
	if key := first(ctx, "api-key"); key != "" {
		return key
	}
	const scheme = "Bearer "
	if value := first(ctx, "authorization"); len(value) > len(scheme) && strings.EqualFold(value[:len(scheme)], scheme) {
		return value[len(scheme):]
	}
	return ""
}

// first returns the first value of a name in the metadata of a call, empty if there is none.
func first(ctx context.Context, name string) string {
	if values := metadata.ValueFromIncomingContext(ctx, name); len(values) > 0 {
		return values[0]
	}
	return ""
}

func unimplemented(context.Context, func(any) error) (any, error) {
	return nil, status.Error(codes.Unimplemented, "no such method")
}
