package engine

import (
	"testing"

	"github.com/vectord/vectord"
)

func TestFilter(t *testing.T) {
	f := func(filter, payload string, want bool) {
		t.Helper()
		parsed, err := vectord.ParseFilter([]byte(filter))
		if err != nil {
			t.Fatalf("filter %s: %v", filter, err)
		}
		m, err := compileFilter(parsed, nil)
		if err != nil {
			t.Fatalf("filter %s: %v", filter, err)
		}
		got, err := m.matches(pointView{id: vectord.NumberID(7), payload: []byte(payload), hasVector: isDefaultVector})
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("filter %s on %s is %v, want %v", filter, payload, got, want)
		}
	}
	one := func(condition, payload string, want bool) {
		t.Helper()
		f(`{"must":`+condition+`}`, payload, want)
		f(`{"must_not":[`+condition+`]}`, payload, !want)
		f(`{"should":[`+condition+`]}`, payload, want)
		f(`{"must":[{"must_not":[{"must_not":[`+condition+`]}]}]}`, payload, want)
	}
	f(`{}`, `{}`, true)
	one(`{"key":"a","match":{"value":"x"}}`, `{"a":"x"}`, true)
	one(`{"key":"a","match":{"value":"x"}}`, `{"a":"X"}`, false)
	one(`{"key":"a","match":{"value":"x"}}`, `{"a":["y","x"]}`, true)
	one(`{"key":"a","match":{"value":"x"}}`, `{}`, false)
	one(`{"key":"a","match":{"value":1}}`, `{"a":1}`, true)
	one(`{"key":"a","match":{"value":1}}`, `{"a":1.0}`, false)
	one(`{"key":"a","match":{"value":9007199254740993}}`, `{"a":9007199254740992}`, false)
	one(`{"key":"a","match":{"value":9007199254740993}}`, `{"a":9007199254740993}`, true)
	one(`{"key":"a","match":{"value":true}}`, `{"a":true}`, true)
	one(`{"key":"a","match":{"value":true}}`, `{"a":"true"}`, false)
	one(`{"key":"a","match":{"any":["x","y"]}}`, `{"a":"y"}`, true)
	one(`{"key":"a","match":{"any":[]}}`, `{"a":"y"}`, false)
	one(`{"key":"a","match":{"except":["x"]}}`, `{"a":"y"}`, true)
	one(`{"key":"a","match":{"except":["x"]}}`, `{"a":"x"}`, false)
	one(`{"key":"a","match":{"except":["x"]}}`, `{"a":null}`, false)
	one(`{"key":"a","match":{"except":["x"]}}`, `{}`, false)
	one(`{"key":"a","match":{"text":"cat"}}`, `{"a":"a cat sat"}`, true)
	one(`{"key":"a","match":{"text":"Cat"}}`, `{"a":"a cat sat"}`, false)
	one(`{"key":"a","range":{"gte":1,"lt":3}}`, `{"a":1}`, true)
	one(`{"key":"a","range":{"gte":1,"lt":3}}`, `{"a":3}`, false)
	one(`{"key":"a","range":{"gt":1}}`, `{"a":1.5}`, true)
	one(`{"key":"a","range":{"gt":1}}`, `{"a":"2"}`, false)
	one(`{"key":"a","range":{"gt":1}}`, `{"a":[0,2]}`, true)
	one(`{"key":"a","values_count":{"gte":2}}`, `{"a":[1,2]}`, true)
	one(`{"key":"a","values_count":{"lt":1}}`, `{}`, true)
	one(`{"key":"a","values_count":{"gte":1}}`, `{"a":"x"}`, true)
	one(`{"is_empty":{"key":"a"}}`, `{}`, true)
	one(`{"is_empty":{"key":"a"}}`, `{"a":[]}`, true)
	one(`{"is_empty":{"key":"a"}}`, `{"a":null}`, true)
	one(`{"is_empty":{"key":"a"}}`, `{"a":0}`, false)
	one(`{"is_null":{"key":"a"}}`, `{"a":null}`, true)
	one(`{"is_null":{"key":"a"}}`, `{"a":[1,null]}`, true)
	one(`{"is_null":{"key":"a"}}`, `{}`, false)
	one(`{"key":"a","is_empty":false}`, `{"a":1}`, true)
	one(`{"key":"a","is_null":true}`, `{"a":null}`, true)
	one(`{"key":"a.b","match":{"value":1}}`, `{"a":{"b":1}}`, true)
	one(`{"key":"a.b","match":{"value":1}}`, `{"a":[{"b":1}]}`, false)
	one(`{"key":"a[].b","match":{"value":1}}`, `{"a":[{"b":2},{"b":1}]}`, true)
	one(`{"key":"a[0].b","match":{"value":1}}`, `{"a":[{"b":2},{"b":1}]}`, false)
	one(`{"key":"\"a.b\"","match":{"value":1}}`, `{"a.b":1}`, true)
	one(`{"has_id":[7,8]}`, `{}`, true)
	one(`{"has_id":[8]}`, `{}`, false)
	one(`{"has_id":[]}`, `{}`, false)
	f(`{"min_should":{"min_count":2,"conditions":[{"has_id":[7]},{"has_id":[8]},{"is_empty":{"key":"a"}}]}}`, `{}`, true)
	f(`{"min_should":{"min_count":2,"conditions":[{"has_id":[7]},{"has_id":[8]},{"is_empty":{"key":"a"}}]}}`, `{"a":1}`, false)
	f(`{"must":[{"has_id":[7]}],"should":[{"has_id":[8]}]}`, `{}`, false)
}

func TestFilterRefuses(t *testing.T) {
	for _, filter := range []string{
		`[]`, `1`, `{"must":5}`, `{"musst":[]}`, `{"must":[{"key":"a"}]}`, `{"must":[{"match":{"value":1}}]}`,
		`{"must":[{"key":"a","match":{}}]}`, `{"must":[{"key":"a","match":{"value":1.5}}]}`,
		`{"must":[{"key":"a","match":{"value":1,"any":[2]}}]}`, `{"must":[{"key":"a","range":{"gt":"x"}}]}`,
		`{"must":[{"key":"a","range":{"above":1}}]}`, `{"must":[{"key":"a","geo_radius":{}}]}`,
		`{"must":[{"has_id":["5"]}]}`, `{"must":[{"has_id":[-1]}]}`, `{"must":[{"is_empty":{}}]}`, `{"must":[{"key":""}]}`,
		`{"min_should":{"min_count":0,"conditions":[]}}`,
	} {
		f, err := vectord.ParseFilter([]byte(filter))
		if err == nil {
			_, err = compileFilter(f, nil)
		}
		if k := vectord.KindOf(err); err == nil || k != vectord.KindInvalid && k != vectord.KindUnprocessable {
			t.Errorf("filter %s: error %v", filter, err)
		}
	}
	deep := ""
	for range 40 {
		deep += `{"must":[`
	}
	for range 40 {
		deep += `]}`
	}
	if _, err := vectord.ParseFilter([]byte(deep)); vectord.KindOf(err) != vectord.KindInvalid {
		t.Errorf("a filter of 40 levels: %v", err)
	}
}

// FuzzFilter checks that what is accepted survives encoding, and that both spellings decide alike.
func FuzzFilter(f *testing.F) {
	f.Add([]byte(`{"must":[{"key":"a[].b","match":{"any":["x",1,true]}},{"has_id":[1,"0f8fad5b-d9cb-469f-a165-70867728950e"]}]}`), []byte(`{"a":[{"b":"x"}]}`))
	f.Add([]byte(`{"should":{"is_empty":{"key":"a"}},"min_should":{"min_count":1,"conditions":[{"key":"a","range":{"gt":1e3}}]}}`), []byte(`{}`))
	f.Add([]byte(`{"must_not":[{"key":"a","values_count":{"lt":2},"is_null":true}]}`), []byte(`{"a":null}`))
	f.Fuzz(func(t *testing.T, filter, payload []byte) {
		parsed, err := vectord.ParseFilter(filter)
		if err != nil || parsed == nil {
			return
		}
		m, err := compileFilter(parsed, nil)
		if err != nil || checkPayload("payload", payload) != nil {
			return
		}
		encoded, err := parsed.MarshalJSON()
		if err != nil {
			t.Fatalf("encode %s: %v", filter, err)
		}
		again, err := vectord.ParseFilter(encoded)
		if err != nil {
			t.Fatalf("%s was accepted and its encoding %s is not: %v", filter, encoded, err)
		}
		m2, err := compileFilter(again, nil)
		if err != nil {
			t.Fatal(err)
		}
		a, err := m.matches(pointView{id: vectord.NumberID(1), payload: payload, hasVector: isDefaultVector})
		if err != nil {
			t.Fatal(err)
		}
		if b, err := m2.matches(pointView{id: vectord.NumberID(1), payload: payload, hasVector: isDefaultVector}); err != nil || a != b {
			t.Fatalf("%s is %v on %s, its encoding %s is %v (%v)", filter, a, payload, encoded, b, err)
		}
	})
}
