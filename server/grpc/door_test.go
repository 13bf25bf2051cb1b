package grpcserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/qdrant/go-client/qdrant"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/access"
	"github.com/vectord/vectord/internal/model"
	"github.com/vectord/vectord/internal/token"
)

// methodsOf calls f with every method of the four services, as their descriptors have them.
func methodsOf(t *testing.T, f func(name string, m protoreflect.MethodDescriptor)) {
	t.Helper()
	for _, service := range []string{"qdrant.Qdrant", "qdrant.Collections", "qdrant.Points", "qdrant.Snapshots"} {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
		if err != nil {
			t.Fatal(err)
		}
		methods := d.(protoreflect.ServiceDescriptor).Methods()
		for i := range methods.Len() {
			f(service+"/"+string(methods.Get(i).Name()), methods.Get(i))
		}
	}
}

// TestEveryMethodDeclares checks that every method has its line in the table, and that no line contradicts the messages.
func TestEveryMethodDeclares(t *testing.T) {
	lines := 0
	methodsOf(t, func(name string, m protoreflect.MethodDescriptor) {
		r, ok := rules[name]
		if !ok {
			t.Errorf("%s is not in the table", name)
			return
		}
		lines++
		f := func(ok bool, what string) {
			t.Helper()
			if !ok {
				t.Errorf("%s (%v): %s", name, r.needs, what)
			}
		}
		f(r.needs >= access.Open && r.needs <= access.Manage, "declares no permission")
		f(r.scope >= access.ScopeServer && r.scope <= access.ScopeListed, "declares no scope")
		named := m.Input().Fields().ByName("collection_name") != nil
		f(named == (r.scope == access.ScopeCollection), "a collection's name and ScopeCollection belong together")
		f(r.scope != access.ScopeListed || r.needs == access.Read, "lists are for reading")
		f(r.needs != access.Open || name == "qdrant.Qdrant/HealthCheck", "is open")
		for _, changes := range []string{"Create", "Update", "Delete", "Upsert", "Set", "Overwrite", "Clear"} {
			if strings.HasPrefix(string(m.Name()), changes) {
				f(r.needs >= access.Write, "changes something and must not be for readers")
			}
		}
		if strings.Contains(name, "Index") || strings.HasPrefix(name, "qdrant.Snapshots/") && !strings.HasPrefix(string(m.Name()), "List") {
			f(r.needs >= access.Maintain, "is about indexes or snapshots and must need maintain")
		}
		if strings.HasPrefix(name, "qdrant.Collections/") && r.needs > access.Read {
			f(r.needs == access.Manage, "changes collections and must need manage")
		}
		f(!m.IsStreamingClient() && !m.IsStreamingServer(), "is a stream, which the server does not know")
	})
	if lines != len(rules) {
		t.Errorf("%d of %d lines are of methods that exist", lines, len(rules))
	}
}

// faulty is a model that fails as it is told.
type faulty struct {
	*model.Model
	fail func(ctx context.Context) error
}

func (f faulty) Count(ctx context.Context, name string, filter *vectord.Filter) (int, error) {
	if f.fail != nil {
		return 0, f.fail(ctx)
	}
	return f.Model.Count(ctx, name, filter)
}

// door serves an engine on a loopback port until the test ends, and returns a connection to it.
func door(t testing.TB, e Engine, o Options, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New(e, o)
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	conn, err := grpc.NewClient(ln.Addr().String(), append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(conn.Close(), s.Shutdown(context.Background()), <-served); err != nil {
			t.Error(err)
		}
	})
	return conn
}

// count asks how many points a collection has, which is a call like any other.
func count(ctx context.Context, conn *grpc.ClientConn, collection string) error {
	_, err := qdrant.NewPointsClient(conn).Count(ctx, &qdrant.CountPoints{CollectionName: collection})
	return err
}

func withKey(ctx context.Context, key string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "api-key", key)
}

var everyKey = access.Keys{APIKey: "secret", AltAPIKey: "other secret", ReadOnlyAPIKey: "look", JWTRBAC: true}

// TestPermissions calls every method with every kind of credential, and compares what is let in with what the method
// declares.
func TestPermissions(t *testing.T) {
	conn := door(t, model.New(), Options{Keys: everyKey})
	signed := func(key string, c token.Claims) string {
		text, err := token.Sign(key, &c)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	opening := func(collection string, a token.Access) string {
		return signed("secret", token.Claims{Collections: []token.Collection{{Name: collection, Access: a}}})
	}
	const none, bad access.Permission = 0, 100 // no credential that is known; a token that is not valid
	credentials := []struct {
		name, text string
		everywhere access.Permission
		onC        access.Permission // on collection c, if more
	}{
		{"none", "", none, none},
		{"wrong key", "no", none, none},
		{"full key", "secret", access.Manage, none},
		{"alternative key", "other secret", access.Manage, none},
		{"read-only key", "look", access.Read, none},
		{"token m", signed("secret", token.Claims{Access: token.Manage}), access.Manage, none},
		{"token r", signed("secret", token.Claims{Access: token.Read}), access.Read, none},
		{"token c=r", opening("c", token.Read), access.Open, access.Read},
		{"token c=prw", opening("c", token.WritePoints), access.Open, access.Write},
		{"token c=rw", opening("c", token.Write), access.Open, access.Maintain},
		{"token other=rw", opening("other", token.Write), access.Open, none},
		{"token by another key", signed("look", token.Claims{Access: token.Manage}), bad, none},
		{"expired token", signed("secret", token.Claims{Access: token.Manage, Expires: time.Now().Add(-time.Hour)}), bad, none},
	}
	opened := map[string]int{}
	check := func(name string, in, out protoreflect.MessageDescriptor, r rule) {
		message := dynamicpb.NewMessage(in)
		if field := in.Fields().ByName("collection_name"); field != nil {
			message.Set(field, protoreflect.ValueOfString("c"))
		}
		for _, c := range credentials {
			want := codes.OK // stands for anything but the refusals
			switch {
			case r.needs == access.Open:
			case c.everywhere == none, c.everywhere == bad:
				want = codes.Unauthenticated
			case c.everywhere >= r.needs:
			case r.scope == access.ScopeCollection && c.onC >= r.needs:
			case r.scope == access.ScopeListed:
			default:
				want = codes.PermissionDenied
			}
			for _, header := range [][]string{{"api-key", c.text}, {"authorization", "Bearer " + c.text}, {"authorization", "bearer " + c.text}} {
				err := conn.Invoke(metadata.AppendToOutgoingContext(t.Context(), header...), "/"+name, message, dynamicpb.NewMessage(out))
				got := status.Code(err)
				if got != codes.Unauthenticated && got != codes.PermissionDenied {
					got = codes.OK
				}
				if got != want {
					t.Errorf("%s with %s in %s: %v, want %v", name, c.name, header[0], err, want)
				}
			}
			if want == codes.OK {
				opened[c.name]++
			}
		}
	}
	methodsOf(t, func(name string, m protoreflect.MethodDescriptor) { check(name, m.Input(), m.Output(), rules[name]) })
	empty := new(qdrant.HealthCheckRequest).ProtoReflect().Descriptor()
	check("qdrant.Points/Nothing", empty, empty, noSuchMethod)
	check("qdrant.Nothing/Nothing", empty, empty, noSuchMethod)
	if a, b, c, d := opened["none"], opened["token c=r"], opened["token c=prw"], opened["full key"]; !(0 < a && a < b && b < c && c < d) {
		t.Errorf("methods opened: %v", opened)
	}
	if err := conn.Invoke(withKey(t.Context(), "secret"), "/qdrant.Points/Nothing", new(qdrant.HealthCheckRequest), new(qdrant.HealthCheckReply)); status.Code(err) != codes.Unimplemented {
		t.Errorf("a method that does not exist: %v", err)
	}
}

// TestUndeclared checks that a method without a line in the table is closed to everybody.
func TestUndeclared(t *testing.T) {
	const name = "qdrant.Points/Count"
	line := rules[name]
	delete(rules, name)
	defer func() { rules[name] = line }()
	conn := door(t, model.New(), Options{Keys: everyKey})
	if err := count(withKey(t.Context(), "secret"), conn, "c"); status.Code(err) != codes.PermissionDenied {
		t.Errorf("with the full key: %v", err)
	}
}

// TestTokenOfOneCollection checks that a token opens what it says and no more: in lists, by aliases, and in collections
// that a message names besides.
func TestTokenOfOneCollection(t *testing.T) {
	m := model.New()
	for _, name := range []string{"a", "b"} {
		if err := m.CreateCollection(t.Context(), name, vectord.DefaultCollectionConfig(1, vectord.Dot)); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.UpdateAliases(t.Context(), []vectord.AliasAction{{Create: &vectord.Alias{Name: "x", Collection: "a"}}, {Create: &vectord.Alias{Name: "y", Collection: "b"}}}); err != nil {
		t.Fatal(err)
	}
	conn := door(t, m, Options{Keys: everyKey})
	text, err := token.Sign("secret", &token.Claims{Collections: []token.Collection{{Name: "a", Access: token.Read}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx := withKey(t.Context(), text)
	list, err := qdrant.NewCollectionsClient(conn).List(ctx, &qdrant.ListCollectionsRequest{})
	if err != nil || len(list.GetCollections()) != 1 || list.GetCollections()[0].GetName() != "a" {
		t.Errorf("listed: %v, %v", list, err)
	}
	aliases, err := qdrant.NewCollectionsClient(conn).ListAliases(ctx, &qdrant.ListAliasesRequest{})
	if err != nil || len(aliases.GetAliases()) != 1 || aliases.GetAliases()[0].GetAliasName() != "x" {
		t.Errorf("listed aliases: %v, %v", aliases, err)
	}
	for name, want := range map[string]codes.Code{"a": codes.OK, "x": codes.OK, "b": codes.PermissionDenied, "y": codes.PermissionDenied, "no": codes.PermissionDenied} {
		if err := count(ctx, conn, name); status.Code(err) != want {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	points := qdrant.NewPointsClient(conn)
	id := qdrant.NewQueryID(qdrant.NewIDNum(1))
	besides := map[string]func(collection string) error{
		"lookup_from": func(collection string) error {
			_, err := points.Query(ctx, &qdrant.QueryPoints{CollectionName: "a", Query: id, LookupFrom: &qdrant.LookupLocation{CollectionName: collection}})
			return err
		},
		"lookup_from of a prefetch": func(collection string) error {
			_, err := points.Query(ctx, &qdrant.QueryPoints{CollectionName: "a", Query: qdrant.NewQueryFusion(qdrant.Fusion_RRF),
				Prefetch: []*qdrant.PrefetchQuery{{Query: id, LookupFrom: &qdrant.LookupLocation{CollectionName: collection}}}})
			return err
		},
		"lookup_from of a recommendation": func(collection string) error {
			_, err := points.Recommend(ctx, &qdrant.RecommendPoints{CollectionName: "a", Positive: []*qdrant.PointId{qdrant.NewIDNum(1)}, Limit: 1, LookupFrom: &qdrant.LookupLocation{CollectionName: collection}})
			return err
		},
		"lookup_from of a discovery": func(collection string) error {
			_, err := points.Discover(ctx, &qdrant.DiscoverPoints{CollectionName: "a", Target: qdrant.NewTargetID(qdrant.NewIDNum(1)), Limit: 1, LookupFrom: &qdrant.LookupLocation{CollectionName: collection}})
			return err
		},
		"with_lookup": func(collection string) error {
			_, err := points.SearchGroups(ctx, &qdrant.SearchPointGroups{CollectionName: "a", Vector: []float32{1}, Limit: 1, GroupBy: "g", WithLookup: &qdrant.WithLookup{Collection: collection}})
			return err
		},
	}
	for what, ask := range besides {
		for _, name := range []string{"b", "y", "no"} {
			if err := ask(name); status.Code(err) != codes.PermissionDenied {
				t.Errorf("%s %s: %v", what, name, err)
			}
		}
		for _, name := range []string{"a", "x"} {
			if err := ask(name); status.Code(err) == codes.PermissionDenied {
				t.Errorf("%s %s: %v", what, name, err)
			}
		}
	}
}

// TestErrors checks that each kind of error goes out by its code, and that internal ones keep their text to themselves.
func TestErrors(t *testing.T) {
	f := func(err error, want codes.Code, text string) {
		t.Helper()
		if got := statusOf(err); got.Code() != want || !strings.Contains(got.Message(), text) {
			t.Errorf("%v: %v %q, want %v with %q", err, got.Code(), got.Message(), want, text)
		}
	}
	for kind := vectord.KindInvalid; vectord.KindOf(vectord.Errorf(kind, "x")) == kind && !strings.HasPrefix(kind.String(), "kind "); kind++ {
		if code, ok := codeOf[kind]; !ok {
			t.Errorf("errors that are %v have no code", kind)
		} else {
			f(fmt.Errorf("outside: %w", vectord.Errorf(kind, "inside")), code, "outside: inside")
		}
	}
	f(nil, codes.OK, "")
	f(errors.New("secret"), codes.Internal, "the server's log has the details")
	if strings.Contains(statusOf(errors.New("secret")).Message(), "secret") {
		t.Error("the text of an internal error goes out")
	}
	f(vectord.Errorf(vectord.KindInvalid, "\xff"), codes.InvalidArgument, "\uFFFD")
	f(context.Canceled, codes.Canceled, "")
	f(fmt.Errorf("search: %w", context.DeadlineExceeded), codes.DeadlineExceeded, "search")
	f(&access.Denial{Kind: access.NoKey, Text: "a"}, codes.Unauthenticated, "a")
	f(&access.Denial{Kind: access.BadToken, Text: "b"}, codes.Unauthenticated, "b")
	f(fmt.Errorf("lookup: %w", &access.Denial{Kind: access.Forbidden, Text: "c"}), codes.PermissionDenied, "c")
	f(status.Error(codes.ResourceExhausted, "d"), codes.ResourceExhausted, "d")
}

// TestFaults has an engine fail in every way, and looks at what clients, the log and the metrics say.
func TestFaults(t *testing.T) {
	var logged lockedBuffer
	registry := prometheus.NewRegistry()
	var mu sync.Mutex
	var fault func(context.Context) error
	e := faulty{model.New(), func(ctx context.Context) error {
		mu.Lock()
		f := fault
		mu.Unlock()
		return f(ctx)
	}}
	conn := door(t, e, Options{Metrics: registry, RequestTimeout: time.Hour, Logger: slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	f := func(ctx context.Context, want codes.Code, fails func(context.Context) error) metadata.MD {
		t.Helper()
		mu.Lock()
		fault = fails
		mu.Unlock()
		var trailer metadata.MD
		_, err := qdrant.NewPointsClient(conn).Count(ctx, &qdrant.CountPoints{CollectionName: "c"}, grpc.Trailer(&trailer))
		if status.Code(err) != want {
			t.Errorf("%v, want %v", err, want)
		}
		return trailer
	}
	f(t.Context(), codes.Internal, func(context.Context) error { panic("on purpose") })
	f(t.Context(), codes.Internal, func(context.Context) error { return errors.New("broken within") })
	overloaded := &vectord.Error{Kind: vectord.KindOverloaded, Text: "busy", RetryAfter: 2500 * time.Millisecond}
	if got := f(t.Context(), codes.ResourceExhausted, func(context.Context) error { return overloaded }).Get("retry-after"); !slices.Equal(got, []string{"3"}) {
		t.Errorf("retry after %v", got)
	}
	if got := f(t.Context(), codes.ResourceExhausted, func(context.Context) error { return vectord.Errorf(vectord.KindNoMemory, "full") }).Get("retry-after"); got != nil {
		t.Errorf("retry after %v where it does not help", got)
	}
	f(t.Context(), codes.OK, func(context.Context) error { return nil })

	// A deadline, by the client and by the message, ends the engine's context.
	ended := make(chan error, 1)
	wait := func(ctx context.Context) error {
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	f(short, codes.DeadlineExceeded, wait)
	<-ended
	mu.Lock()
	fault = wait
	mu.Unlock()
	_, err := qdrant.NewPointsClient(conn).Count(t.Context(), &qdrant.CountPoints{CollectionName: "c", Timeout: proto.Uint64(1)})
	if status.Code(err) != codes.DeadlineExceeded || !errors.Is(<-ended, context.DeadlineExceeded) {
		t.Errorf("a timeout in the message: %v", err)
	}
	if _, err := qdrant.NewPointsClient(conn).Count(t.Context(), &qdrant.CountPoints{CollectionName: "c", Timeout: proto.Uint64(0)}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a timeout of 0: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	f(gone, codes.Canceled, func(ctx context.Context) error {
		cancel()
		return wait(ctx)
	})
	<-ended

	for _, want := range []string{"on purpose", "broken within", "method=qdrant.Points/Count", "credential=none", "code=OK"} {
		if !strings.Contains(logged.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, logged.String())
		}
	}
	for code, want := range map[string]float64{"OK": 1, "Internal": 2, "ResourceExhausted": 2, "InvalidArgument": 1} {
		if got := metricValue(t, registry, "vectord_grpc_requests_total", "qdrant.Points/Count", code); got != want {
			t.Errorf("%v calls ended with %s, want %v", got, code, want)
		}
	}
}

// lockedBuffer is a buffer that may be written and read at the same time.
type lockedBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// metricValue returns a counter of a method and a code.
func metricValue(t *testing.T, registry *prometheus.Registry, name, method, code string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if labels["method"] == method && labels["code"] == code {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// TestLimits sends what is too large and too much.
func TestLimits(t *testing.T) {
	release := make(chan struct{})
	entered := make(chan struct{}, 8)
	e := faulty{model.New(), func(context.Context) error {
		entered <- struct{}{}
		<-release
		return nil
	}}
	conn := door(t, e, Options{MaxMessageBytes: 1 << 16, MaxConcurrentCalls: 1})
	points := qdrant.NewPointsClient(conn)
	large := &qdrant.CountPoints{CollectionName: strings.Repeat("x", 1<<16)}
	for _, options := range [][]grpc.CallOption{nil, {grpc.UseCompressor(gzip.Name)}} { // … also if it is small on the wire
		if _, err := points.Count(t.Context(), large, options...); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("a message that is too large: %v", err)
		}
	}
	if err := count(t.Context(), conn, strings.Repeat("x", 1<<10)); status.Code(err) != codes.InvalidArgument {
		t.Errorf("after that, a long name: %v", err)
	}
	if err := count(metadata.AppendToOutgoingContext(t.Context(), "api-key", strings.Repeat("x", maxHeaderBytes)), conn, "c"); err == nil {
		t.Error("a header that is too large is accepted")
	}

	first := make(chan error, 1)
	go func() { first <- count(t.Context(), conn, "c") }()
	<-entered
	// One stream of a connection is all that it may have: another waits here, and by another connection it is refused.
	other, err := grpc.NewClient(conn.Target(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := count(t.Context(), other, "c"); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a call too many: %v", err)
	}
	if _, err := qdrant.NewQdrantClient(other).HealthCheck(t.Context(), &qdrant.HealthCheckRequest{}); err != nil {
		t.Errorf("health of a full server: %v", err)
	}
	close(release)
	if err := <-first; err != nil {
		t.Error(err)
	}
	if _, err := points.Count(t.Context(), &qdrant.CountPoints{CollectionName: "c"}, grpc.UseCompressor(gzip.Name)); err != nil {
		t.Errorf("a compressed call: %v", err)
	}
}

// TestReceiving checks that messages which do not come to their end take their share of memory and no more, that a
// stranger's is not waited for, and that the time of a call counts from its header.
func TestReceiving(t *testing.T) {
	conn := door(t, faulty{Model: model.New()}, Options{Keys: access.Keys{APIKey: "secret"}, MaxMessageBytes: 1 << 20, MaxMessagesBytes: 1 << 20, RequestTimeout: 200 * time.Millisecond})
	begin := func(ctx context.Context) grpc.ClientStream {
		t.Helper()
		stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, "/qdrant.Points/Count")
		if err != nil {
			t.Fatal(err)
		}
		return stream
	}
	if err := begin(t.Context()).RecvMsg(new(qdrant.CountResponse)); status.Code(err) != codes.Unauthenticated {
		t.Errorf("without a key and a message: %v", err)
	}
	ctx := withKey(t.Context(), "secret")
	slow := begin(ctx)
	if err := slow.RecvMsg(new(qdrant.CountResponse)); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("a message that never comes: %v", err)
	}
	if err := count(ctx, conn, "c"); status.Code(err) != codes.NotFound && err != nil {
		t.Errorf("after that: %v", err)
	}
}

// TestShutdown checks that a call which is being served has its answer, and that one which does not end is cut off.
func TestShutdown(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	e := faulty{model.New(), func(ctx context.Context) error {
		entered <- struct{}{}
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
	run := func(within context.Context, meanwhile func()) (call, shutdown error) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := New(e, Options{Logger: slog.New(slog.DiscardHandler)})
		served := make(chan error, 1)
		go func() { served <- s.Serve(ln) }()
		conn, err := grpc.NewClient(ln.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		called := make(chan error, 1)
		go func() { called <- count(context.Background(), conn, "c") }()
		<-entered
		go meanwhile()
		shutdown = s.Shutdown(within)
		if err := <-served; err != nil {
			t.Error(err)
		}
		return <-called, shutdown
	}
	call, shutdown := run(t.Context(), func() { release <- struct{}{} })
	if call != nil || shutdown != nil {
		t.Errorf("a call that ends: %v, %v", call, shutdown)
	}
	over, cancel := context.WithCancel(t.Context())
	call, shutdown = run(over, cancel)
	if call == nil || !errors.Is(shutdown, context.Canceled) {
		t.Errorf("a call that does not end: %v, %v", call, shutdown)
	}
}

func TestHealth(t *testing.T) {
	conn := door(t, model.New(), Options{Keys: everyKey, Commit: "abc"})
	got, err := qdrant.NewQdrantClient(conn).HealthCheck(t.Context(), &qdrant.HealthCheckRequest{})
	if err != nil || got.GetTitle() != "vectord" || got.GetVersion() != apiLevel || got.GetCommit() != "abc" {
		t.Errorf("%v, %v", got, err)
	}
	for _, client := range []string{"v1.17.1", "v1.18.0", "v1.19.0"} {
		if !qdrant.IsCompatible(client, apiLevel) {
			t.Errorf("a client of %s warns of %s", client, apiLevel)
		}
	}
	if err := New(model.New(), Options{}).ServeTLS(nil, &tls.Config{}); err == nil {
		t.Error("TLS is served without a certificate")
	}
}
