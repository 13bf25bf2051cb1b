package engine

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/vectord/vectord"
)

func sameJSON(t *testing.T, got []byte, want string) bool {
	t.Helper()
	var g, w any
	if err := json.Unmarshal(got, &g); err != nil {
		t.Fatalf("result %s: %v", got, err)
	}
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatalf("wanted %s: %v", want, err)
	}
	return reflect.DeepEqual(g, w)
}

func TestParsePathRefuses(t *testing.T) {
	for _, text := range []string{"", ".", "a.", ".a", "a..b", "a[", "a]", "a[x]", "a[-1]", "a[0", `"a`, `a"b"`, "[0]", "a[99999999999]"} {
		if p, err := parsePath(text); err == nil {
			t.Errorf("path %q was parsed as %v", text, p)
		} else if vectord.KindOf(err) != vectord.KindInvalid {
			t.Errorf("path %q: error of kind %v", text, vectord.KindOf(err))
		}
	}
}

func TestSetPayload(t *testing.T) {
	f := func(payload, given, key, want string) {
		t.Helper()
		var at path
		if key != "" {
			var err error
			if at, err = parsePath(key); err != nil {
				t.Fatal(err)
			}
		}
		got, err := setPayload([]byte(payload), []byte(given), at)
		if err != nil {
			t.Fatalf("set %s in %s: %v", given, payload, err)
		}
		if !sameJSON(t, got, want) {
			t.Errorf("set %s at %q in %s gives %s, want %s", given, key, payload, got, want)
		}
	}
	f(``, `{"a":1}`, "", `{"a":1}`)
	f(`{"a":1,"b":2}`, `{"b":3,"c":[4]}`, "", `{"a":1,"b":3,"c":[4]}`)
	f(`{"a":1}`, `{"a":null}`, "", `{}`)
	f(`{"a":{"b":1}}`, `{"c":2}`, "a", `{"a":{"b":1,"c":2}}`)
	f(`{}`, `{"c":2}`, "a.b", `{"a":{"b":{"c":2}}}`)
	f(`{"a":5}`, `{"c":2}`, "a", `{"a":{"c":2}}`)
	f(`{"a":[{"x":1},{"x":2}]}`, `{"y":3}`, "a[1]", `{"a":[{"x":1},{"x":2,"y":3}]}`)
	f(`{"a":[{"x":1},{"x":2}]}`, `{"y":3}`, "a[]", `{"a":[{"x":1,"y":3},{"x":2,"y":3}]}`)
	f(`{"a.b":{}}`, `{"y":3}`, `"a.b"`, `{"a.b":{"y":3}}`)
}

func TestSetPayloadKeepsNumbersAsTheyCame(t *testing.T) {
	got, err := setPayload([]byte(`{"big":18446744073709551615,"one":1.0,"tiny":1e-300}`), []byte(`{"more":9007199254740993}`), nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"big":18446744073709551615,"one":1.0,"tiny":1e-300,"more":9007199254740993}`; string(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestDeletePayload(t *testing.T) {
	f := func(payload, want string, keys ...string) {
		t.Helper()
		paths, err := parsePaths(keys)
		if err != nil {
			t.Fatal(err)
		}
		got, err := deletePayload([]byte(payload), paths)
		if err != nil {
			t.Fatal(err)
		}
		if !sameJSON(t, got, want) {
			t.Errorf("delete %q in %s gives %s, want %s", keys, payload, got, want)
		}
	}
	f(`{"a":1,"b":2}`, `{"b":2}`, "a", "c")
	f(`{"a":{"b":1,"c":2}}`, `{"a":{"c":2}}`, "a.b")
	f(`{"a":[{"b":1},{"b":2}]}`, `{"a":[{},{}]}`, "a[].b")
	f(`{"a":[1,2,3]}`, `{"a":[1,2,3]}`, "a[1]")
	f(`{"a":[1,2,3]}`, `{"a":[]}`, "a[]")
	f(`{"a":1}`, `{"a":1}`, "a.b", "a[0]")
}

func TestProject(t *testing.T) {
	const payload = `{"a":1,"b":{"c":2,"d":[{"e":3,"f":4},{"e":5}]},"g":null}`
	f := func(s vectord.Selection, want string) {
		t.Helper()
		sel, err := new(collection).compileSelection(s)
		if err != nil {
			t.Fatal(err)
		}
		got, err := sel.project([]byte(payload))
		if err != nil {
			t.Fatal(err)
		}
		if !sameJSON(t, got, want) {
			t.Errorf("select %+v gives %s, want %s", s, got, want)
		}
	}
	f(vectord.Selection{}, payload)
	f(vectord.Selection{Include: []string{"a"}}, `{"a":1}`)
	f(vectord.Selection{Include: []string{"b.c", "g"}}, `{"b":{"c":2},"g":null}`)
	f(vectord.Selection{Include: []string{"b.d[].e"}}, `{"b":{"d":[{"e":3},{"e":5}]}}`)
	f(vectord.Selection{Include: []string{"nothing", "b.nothing"}}, `{}`)
	f(vectord.Selection{Exclude: []string{"b.d", "a"}}, `{"b":{"c":2},"g":null}`)
}

func TestCheckPayload(t *testing.T) {
	for _, good := range []string{"", "{}", `{"a":[1,2,{"b":null}]}`, ` {"a":1} `} {
		if err := checkPayload("payload", []byte(good)); err != nil {
			t.Errorf("payload %q is refused: %v", good, err)
		}
	}
	for _, bad := range []string{"null", "[]", "1", `"a"`, "{", `{"a":}`, "{} {}", `{"a":01}`, `{"a":+1}`, `{"a":nan}`, `{"a":1.0.1}`, "{\"a\":\"\x01\"}"} {
		if err := checkPayload("payload", []byte(bad)); vectord.KindOf(err) != vectord.KindInvalid {
			t.Errorf("payload %q: error %v", bad, err)
		}
	}
}
