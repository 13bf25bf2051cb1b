package access

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/model"
	"github.com/vectord/vectord/internal/token"
)

var everyKey = Keys{APIKey: "secret", AltAPIKey: "other secret", ReadOnlyAPIKey: "look", JWTRBAC: true}

// signed returns the text of a token.
func signed(t testing.TB, c token.Claims) string {
	t.Helper()
	text, err := token.Sign("secret", &c)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// opening returns a token that opens one collection.
func opening(t testing.TB, collection string, a token.Access) string {
	t.Helper()
	return signed(t, token.Claims{Collections: []token.Collection{{Name: collection, Access: a}}})
}

func create(t *testing.T, m *model.Model, collection string) {
	t.Helper()
	if err := m.CreateCollection(t.Context(), collection, vectord.DefaultCollectionConfig(1, vectord.Dot)); err != nil {
		t.Fatal(err)
	}
}

// TestUndeclared checks that what has no declaration is closed to everybody.
func TestUndeclared(t *testing.T) {
	a := New(everyKey, model.New())
	full, err := a.Authenticate("secret")
	if err != nil {
		t.Fatal(err)
	}
	f := func(c Caller, needed Permission, s Scope, want bool) {
		t.Helper()
		if _, err := a.Authorize(&c, needed, s, "c"); (err == nil) != want {
			t.Errorf("%+v, %v, scope %d: %v", c, needed, s, err)
		}
	}
	f(full, Manage, ScopeCollection, true)
	f(full, 0, ScopeCollection, false)
	f(full, Manage, 0, false)
	f(Caller{}, Read, ScopeCollection, false)
	f(Caller{}, Read, ScopeListed, false)
	f(Caller{}, Read, ScopeServer, false)
}

// TestAliasIsResolvedOnce checks that what was checked is what is used, wherever an alias goes meanwhile.
func TestAliasIsResolvedOnce(t *testing.T) {
	m := model.New()
	a := New(everyKey, m)
	create(t, m, "a")
	create(t, m, "b")
	if err := m.UpdateAliases(t.Context(), []vectord.AliasAction{{Create: &vectord.Alias{Name: "x", Collection: "a"}}}); err != nil {
		t.Fatal(err)
	}
	f := func(key, collection, want string) {
		t.Helper()
		c, err := a.Authenticate(key)
		if err != nil {
			t.Fatal(err)
		}
		got, err := a.Authorize(&c, Read, ScopeCollection, collection)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s goes on as %q, %v, want %q", collection, got, err, want)
		}
	}
	f(opening(t, "a", token.Read), "x", "a")
	f(opening(t, "a", token.Read), "a", "a")
	f(opening(t, "b", token.Read), "x", "")
	f("look", "x", "x")
	f("secret", "absent", "absent")
}

// counting is a model that counts as it is told, and how often it was asked.
type counting struct {
	*model.Model
	count func(context.Context) (int, error)
	asked atomic.Int64
}

func (c *counting) Count(ctx context.Context, name string, f *vectord.Filter) (int, error) {
	c.asked.Add(1)
	if c.count != nil {
		return c.count(ctx)
	}
	return c.Model.Count(ctx, name, f)
}

func TestValueExists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &counting{Model: model.New()}
		a := New(everyKey, e)
		key := signed(t, token.Claims{Access: token.Read, Subject: "s", Exists: &token.Exists{Collection: "users",
			Matches: []token.Match{{Key: "name", Value: []byte(`"ann"`)}, {Key: "on", Value: []byte("true")}}}})
		f := func(when string, want bool, wantAsked int64) {
			t.Helper()
			before := e.asked.Load()
			c, err := a.Authenticate(key)
			var denied *Denial
			if want && (err != nil || c.subject != "s") || !want && (!errors.As(err, &denied) || denied.Kind != BadToken) {
				t.Errorf("%s: %+v, %v", when, c, err)
			}
			if asked := e.asked.Load() - before; asked != wantAsked {
				t.Errorf("%s: the engine was asked %d times, want %d", when, asked, wantAsked)
			}
		}
		f("without the collection", false, 1)
		create(t, e.Model, "users")
		upsert := func(payload string) {
			t.Helper()
			op := vectord.Operation{Kind: vectord.OpUpsert, Points: []vectord.Point{{ID: vectord.NumberID(1), Vectors: vectord.Unnamed([]float32{1}), Payload: []byte(payload)}}}
			if _, err := e.Write(t.Context(), "users", []vectord.Operation{op}, vectord.WriteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		f("at once again", false, 0)
		time.Sleep(existsFor)
		f("without the point", false, 1)
		upsert(`{"name":"ann","on":false}`)
		time.Sleep(existsFor)
		f("with one of two values", false, 1)
		upsert(`{"name":"ann","on":true}`)
		f("before the answer is old", false, 0)
		time.Sleep(existsFor)
		f("with both", true, 1)
		f("at once again", true, 0)
		upsert(`{"name":"bob","on":true}`)
		time.Sleep(existsFor - time.Nanosecond)
		f("revoked a moment ago", true, 0)
		time.Sleep(time.Nanosecond)
		f("revoked", false, 1)
	})
}

// TestValueExistsIsBounded checks that a search that does not end is cut off, and that all who wait for it share the answer.
func TestValueExistsIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &counting{Model: model.New(), count: func(ctx context.Context) (int, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		}}
		a := New(everyKey, e)
		key := signed(t, token.Claims{Exists: &token.Exists{Collection: "c", Matches: []token.Match{{Key: "a", Value: []byte("1")}}}})
		begin := time.Now()
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if _, err := a.Authenticate(key); vectord.KindOf(err) != vectord.KindOverloaded {
					t.Errorf("%v", err)
				}
			})
		}
		wg.Wait()
		if d := time.Since(begin); d != existsWithin || e.asked.Load() != 1 {
			t.Errorf("the engine was asked %d times within %v", e.asked.Load(), d)
		}
	})
	e := &counting{Model: model.New(), count: func(context.Context) (int, error) { return 1, nil }}
	checks := newExistsChecks(e)
	for i := range existsKept + 100 {
		if ok, err := checks.check(&token.Exists{Collection: "c", Matches: []token.Match{{Key: fmt.Sprint("k", i), Value: []byte("1")}}}); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	if n := checks.answers.Len(); n != existsKept {
		t.Errorf("%d answers are kept", n)
	}
	create(t, e.Model, "users")
	if err := e.UpdateAliases(t.Context(), []vectord.AliasAction{{Create: &vectord.Alias{Name: "y", Collection: "users"}}}); err != nil {
		t.Fatal(err)
	}
	if ok, err := checks.check(&token.Exists{Collection: "y", Matches: []token.Match{{Key: "k", Value: []byte("1")}}}); ok || err != nil {
		t.Errorf("an alias counts as its collection: %v, %v", ok, err)
	}
}

func BenchmarkAuthenticate(b *testing.B) {
	a := New(everyKey, model.New())
	for name, credential := range map[string]string{"key": "secret", "token": opening(b, "a", token.Read)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := a.Authenticate(credential); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
