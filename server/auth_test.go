package server

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vectord/vectord/internal/model"
	"github.com/vectord/vectord/internal/token"
)

// signed returns the text of a token.
func signed(t testing.TB, key string, c token.Claims) string {
	t.Helper()
	text, err := token.Sign(key, &c)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// opening returns a token that opens one collection.
func opening(t testing.TB, collection string, a token.Access) string {
	t.Helper()
	return signed(t, "secret", token.Claims{Collections: []token.Collection{{Name: collection, Access: a}}})
}

var everyKey = Options{APIKey: "secret", AltAPIKey: "other secret", ReadOnlyAPIKey: "look", JWTRBAC: true}

// TestEveryRouteDeclares checks that no line of the route table forgets or contradicts itself.
func TestEveryRouteDeclares(t *testing.T) {
	for _, rt := range append([]route{noSuchRoute, noSuchMethod}, routes...) {
		f := func(ok bool, what string) {
			t.Helper()
			if !ok {
				t.Errorf("%s %s (%v): %s", rt.method, rt.path, rt.needs, what)
			}
		}
		f(rt.needs >= permissionOpen && rt.needs <= permissionManage, "declares no permission")
		f(rt.scope >= scopeServer && rt.scope <= scopeListed, "declares no scope")
		named := strings.Contains(rt.path, "{name}")
		f(named == (rt.scope == scopeCollection), "{name} and scopeCollection belong together")
		f(rt.scope != scopeListed || rt.needs == permissionRead, "lists are for reading")
		f(rt.needs != permissionOpen || rt.scope == scopeServer && rt.method == "GET", "what is open concerns no collection and changes nothing")
		if rt.path == "/collections/{name}" && rt.method != "GET" {
			f(rt.needs == permissionManage, "creates, changes or deletes a collection and must need manage")
		}
		if rt.method == "PUT" || rt.method == "PATCH" || rt.method == "DELETE" {
			f(rt.needs >= permissionWrite, "changes something and must not be for readers")
		}
		if strings.Contains(rt.path, "/index") || strings.Contains(rt.path, "/snapshots") && rt.method != "GET" {
			f(rt.needs >= permissionMaintain, "is about indexes or snapshots and must need maintain")
		}
	}
}

// TestPermissions asks for every route with every kind of credential, and compares what is let in with what the route
// declares.
func TestPermissions(t *testing.T) {
	h := start(t, model.New(), everyKey)
	exists := &token.Exists{Collection: "absent", Matches: []token.Match{{Key: "a", Value: []byte("1")}}}
	const none, bad permission = 0, 100 // no credential that is known; a token that is not valid
	credentials := []struct {
		name, text string
		everywhere permission
		onC        permission // on collection c, if more
	}{
		{"none", "", none, none},
		{"wrong key", "no", none, none},
		{"full key and more", "secretly", none, none},
		{"key in the wrong case", "SECRET", none, none},
		{"full key", "secret", permissionManage, none},
		{"alternative key", "other secret", permissionManage, none},
		{"read-only key", "look", permissionRead, none},
		{"token without access", signed(t, "secret", token.Claims{Access: token.Manage}), permissionManage, none},
		{"token m", signed(t, "secret", token.Claims{Access: token.Manage, Subject: "x", Expires: time.Now().Add(time.Hour)}), permissionManage, none},
		{"token r", signed(t, "secret", token.Claims{Access: token.Read}), permissionRead, none},
		{"token c=r", opening(t, "c", token.Read), permissionOpen, permissionRead},
		{"token c=prw", opening(t, "c", token.WritePoints), permissionOpen, permissionWrite},
		{"token c=rw", opening(t, "c", token.Write), permissionOpen, permissionMaintain},
		{"token other=rw", opening(t, "other", token.Write), permissionOpen, none},
		{"token of nothing", signed(t, "secret", token.Claims{}), permissionOpen, none},
		{"expired token", signed(t, "secret", token.Claims{Access: token.Manage, Expires: time.Now().Add(-time.Hour)}), bad, none},
		{"token by the alternative key", signed(t, "other secret", token.Claims{Access: token.Manage}), bad, none},
		{"token by the read-only key", signed(t, "look", token.Claims{Access: token.Read}), bad, none},
		{"revoked token", signed(t, "secret", token.Claims{Access: token.Manage, Exists: exists}), bad, none},
		{"token-like", "a.b.c", bad, none},
	}
	opened := map[string]int{}
	for _, rt := range append([]route{{method: "GET", path: "/nothing", needs: noSuchRoute.needs, scope: noSuchRoute.scope},
		{method: "PATCH", path: "/collections", needs: noSuchMethod.needs, scope: noSuchMethod.scope}}, routes...) {
		path := strings.NewReplacer("{name}", "c", "{id}", "1").Replace(rt.path)
		for _, c := range credentials {
			want, plain := 0, false // 0 stands for anything but 401 and 403
			switch {
			case rt.needs == permissionOpen:
			case c.everywhere == none:
				want, plain = 401, true
			case c.everywhere == bad:
				want, plain = 403, true
			case c.everywhere >= rt.needs:
			case rt.scope == scopeCollection && c.onC >= rt.needs:
			case rt.scope == scopeListed:
			default:
				want = 403
			}
			for _, header := range [][]string{{"api-key", c.text}, {"Authorization", "Bearer " + c.text}, {"Authorization", "bearer " + c.text}} {
				status, answer, got := h.send(rt.method, path, strings.NewReader("{}"), header...)
				denied := 0
				if status == 401 || status == 403 {
					denied = status
				}
				if denied != want {
					t.Errorf("%s %s with %s in %s: %d %s, want %d", rt.method, rt.path, c.name, header[0], status, answer, want)
				} else if denied != 0 && plain != strings.HasPrefix(got.Get("Content-Type"), "text/plain") {
					t.Errorf("%s %s with %s: %d as %s", rt.method, rt.path, c.name, status, got.Get("Content-Type"))
				}
			}
			if want == 0 {
				opened[c.name]++
			}
		}
		if status, _, _ := h.send(rt.method, path, nil, "Authorization", "Basic secret"); (status == 401) != (rt.needs != permissionOpen) {
			t.Errorf("%s %s with another scheme: %d", rt.method, rt.path, status)
		}
	}
	if a, b, c, d := opened["none"], opened["token c=r"], opened["token c=prw"], opened["full key"]; !(0 < a && a < b && b < c && c < d) {
		t.Errorf("routes opened: %v", opened)
	}
	if status, _, got := h.send("DELETE", "/collections/c/points", nil); status != 401 || got.Get("Allow") != "" {
		t.Errorf("another method without a key: %d, Allow %q", status, got.Get("Allow"))
	}
}

func TestTokensNeedToBeSwitchedOn(t *testing.T) {
	h := start(t, model.New(), Options{APIKey: "secret"})
	if status, answer, _ := h.send("GET", "/collections", nil, "api-key", signed(t, "secret", token.Claims{Access: token.Manage})); status != 401 {
		t.Errorf("%d %s", status, answer)
	}
	defer func() {
		if recover() == nil {
			t.Error("tokens were switched on without a key")
		}
	}()
	New(model.New(), Options{ReadOnlyAPIKey: "look", JWTRBAC: true})
}

// tenants is a server with collections a and b, alias x of a, and a point in each.
func tenants(t *testing.T) *harness {
	t.Helper()
	h := start(t, model.New(), everyKey)
	h.key = "secret"
	for _, c := range []string{"a", "b"} {
		h.ok("PUT", "/collections/"+c, `{"vectors":{"size":1,"distance":"Dot"}}`, "true")
		h.ok("PUT", "/collections/"+c+"/points", `{"points":[{"id":1,"vector":[1],"payload":{"of":"`+c+`"}}]}`, "")
	}
	h.alias("x", "a")
	return h
}

func (h *harness) alias(name, collection string) {
	h.t.Helper()
	h.ok("POST", "/collections/aliases", fmt.Sprintf(`{"actions":[{"create_alias":{"alias_name":%q,"collection_name":%q}}]}`, name, collection), "true")
}

func TestTokenOfOneCollection(t *testing.T) {
	h := tenants(t)
	h.key = opening(t, "a", token.WritePoints)
	h.ok("GET", "/collections", "", `{"collections":[{"name":"a"}]}`)
	h.ok("GET", "/aliases", "", `{"aliases":[{"alias_name":"x","collection_name":"a"}]}`)
	h.ok("GET", "/collections/a/exists", "", `{"exists":true}`)
	h.ok("GET", "/collections/x/aliases", "", `{"aliases":[{"alias_name":"x","collection_name":"a"}]}`)
	h.ok("PUT", "/collections/x/points", `{"points":[{"id":2,"vector":[2]}]}`, "")
	h.ok("POST", "/collections/a/points/count", `{}`, `{"count":2}`)
	h.refused(403, "GET", "/collections/b", "", "Forbidden: the token does not permit to read collection `b`")
	h.refused(403, "GET", "/collections/none/exists", "", "Forbidden: the token does not permit to read collection `none`")
	h.refused(403, "PUT", "/collections/b/points", `{}`, "Forbidden: the token does not permit to write collection `b`")
	h.refused(403, "DELETE", "/collections/a", "", "Forbidden: the token does not permit to manage collection `a`")
	h.refused(403, "GET", "/metrics", "", "Forbidden: the token does not permit to read")
	h.refused(404, "GET", "/nothing", "", "Not found: no route GET /nothing")
	// A query may look up examples in further collections, wherever in it.
	const query, lookup = "/collections/x/points/query", `"query":1,"lookup_from":{"collection":"%s"}`
	inB := fmt.Sprintf(lookup, "b")
	h.ok("POST", query, `{`+fmt.Sprintf(lookup, "x")+`}`, "")
	h.refused(403, "POST", query, `{`+inB+`}`, "Forbidden: the token does not permit to read collection `b`")
	h.refused(403, "POST", query, `{"query":[1],"prefetch":[{},{"query":[1],"prefetch":{`+inB+`}}]}`, "Forbidden: the token does not permit to read collection `b`")
	h.refused(403, "POST", query+"/batch", `{"searches":[{},{`+inB+`}]}`, "Forbidden: the token does not permit to read collection `b`")
	h.key = opening(t, "none", token.Read)
	h.ok("GET", "/collections", "", `{"collections":[]}`)
	h.ok("GET", "/collections/none/exists", "", `{"exists":false}`)
	h.refused(404, "GET", "/collections/none", "", "Not found: Collection `none` doesn't exist!")
	h.key = signed(t, "secret", token.Claims{Access: token.Read})
	h.ok("GET", "/collections", "", `{"collections":[{"name":"a"},{"name":"b"}]}`)
	h.refused(403, "PUT", "/collections/a/points", `{}`, "Forbidden: the token does not permit to write")
}

// TestTokenAndLookups asks for what a token does not open in the bodies of queries.
func TestTokenAndLookups(t *testing.T) {
	h := tenants(t)
	h.ok("POST", "/collections/aliases", `{"actions":[{"create_alias":{"alias_name":"y","collection_name":"b"}}]}`, "true")
	h.key = opening(t, "a", token.Read)
	const of, forbidden = "/collections/a/points", "Forbidden: the token does not permit to read collection `%s`"
	for _, name := range []string{"b", "y", "none"} {
		for path, body := range map[string]string{
			"/query/groups":     `{"query":[1],"group_by":"of","with_lookup":"%s"}`,
			"/search/groups":    `{"vector":[1],"limit":1,"group_by":"of","group_size":1,"with_lookup":{"collection":"%s"}}`,
			"/recommend/groups": `{"positive":[1],"limit":1,"group_by":"of","group_size":1,"lookup_from":{"collection":"%s"}}`,
			"/recommend":        `{"positive":[1],"limit":1,"lookup_from":{"collection":"%s"}}`,
			"/recommend/batch":  `{"searches":[{"positive":[1],"limit":1,"lookup_from":{"collection":"%s"}}]}`,
			"/discover":         `{"target":1,"limit":1,"lookup_from":{"collection":"%s"}}`,
			"/discover/batch":   `{"searches":[{"target":1,"limit":1,"lookup_from":{"collection":"%s"}}]}`,
		} {
			h.refused(403, "POST", of+path, fmt.Sprintf(body, name), fmt.Sprintf(forbidden, name))
		}
	}
	h.ok("POST", of+"/query/groups", `{"query":[1],"group_by":"of","with_lookup":"x"}`, `{"groups":[{"id":"a","hits":[{"id":1,"version":1,"score":1}]}]}`)
	h.ok("POST", of+"/recommend", `{"positive":[1],"limit":1,"lookup_from":{"collection":"x"}}`, "[]")
}

// TestAliasesAndTokens checks that moving an alias changes what requests mean, and never what tokens open.
func TestAliasesAndTokens(t *testing.T) {
	h := tenants(t)
	ofA, ofX := opening(t, "a", token.Read), opening(t, "x", token.Read)
	read := func(key, name string, want int) {
		t.Helper()
		if status, answer, _ := h.send("GET", "/collections/"+name+"/points/1", nil, "api-key", key); status != want {
			t.Errorf("%s: %d %s, want %d", name, status, answer, want)
		}
	}
	read(ofA, "a", 200)
	read(ofA, "x", 200)
	read(ofX, "x", 403)
	read(ofX, "a", 403)
	h.alias("x", "b")
	read(ofA, "a", 200)
	read(ofA, "x", 403)
	read(ofX, "x", 403)
	read(ofX, "b", 403)
	h.ok("POST", "/collections/aliases", `{"actions":[{"delete_alias":{"alias_name":"x"}}]}`, "true")
	h.ok("PUT", "/collections/x", `{"vectors":{"size":1,"distance":"Dot"}}`, "true")
	read(ofX, "x", 404) // now it is the collection that the token names
}

// TestTokenThatBecomesValid takes the mark of a body that was cut off to the handler, with a credential that is good by now.
func TestTokenThatBecomesValid(t *testing.T) {
	h := tenants(t)
	f := func(path string, want int) {
		t.Helper()
		if status, answer, _ := h.send("GET", path, nil, refusedHeader, refusedForCredential); status != want {
			t.Errorf("%s: %d %s, want %d", path, status, answer, want)
		}
	}
	f("/collections/a", 429)
	f("/healthz", 200)
}

// TestAccessLog checks what the log tells of a request, and that no key is in it.
func TestAccessLog(t *testing.T) {
	var logged bytes.Buffer
	var mu sync.Mutex
	o := everyKey
	o.Logger = slog.New(slog.NewTextHandler(&lockedWriter{w: &logged, mu: &mu}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	h := start(t, model.New(), o)
	text := signed(t, "secret", token.Claims{Subject: "ann\nbob", Collections: []token.Collection{{Name: "a", Access: token.Read}}})
	h.send("GET", "/collections/a", nil, "api-key", text)
	h.send("PUT", "/collections/a", nil, "api-key", text)
	h.send("GET", "/collections", nil, "api-key", "look")
	h.send("GET", "/collections", nil, "api-key", "other secret")
	h.send("GET", "/collections", nil, "Authorization", "Bearer wrong.to.ken")
	h.send("GET", "/healthz", nil, "api-key", "secret")
	mu.Lock()
	defer mu.Unlock()
	for _, want := range []string{
		`msg=request method=GET route=/collections/{name} collection=a status=404`,
		`credential=token subject="ann\nbob"`,
		`method=PUT route=/collections/{name} collection=a status=403`,
		`credential=read-only-api-key subject=""`,
		`credential=alt-api-key subject=""`,
		`route=/collections collection="" status=403`,
		`route=/healthz collection="" status=200`,
	} {
		if !strings.Contains(logged.String(), want) {
			t.Errorf("the log lacks %s", want)
		}
	}
	for _, secret := range []string{"secret", "look", "wrong.to.ken", text, text[len(text)-20:]} {
		if strings.Contains(logged.String(), secret) {
			t.Errorf("the log has %q", secret)
		}
	}
	if t.Failed() {
		t.Log(logged.String())
	}
}

func TestOnlyAReadOnlyKey(t *testing.T) {
	h := start(t, model.New(), Options{ReadOnlyAPIKey: "look"})
	if status, _, _ := h.send("DELETE", "/collections/c", nil); status != 401 {
		t.Errorf("without a key: %d", status)
	}
	if status, _, _ := h.send("DELETE", "/collections/c", nil, "api-key", "look"); status != 403 {
		t.Errorf("with the read-only key: %d", status)
	}
}
