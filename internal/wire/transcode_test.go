package wire

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/tinylib/msgp/msgp"

	"github.com/vectord/vectord"
)

// packed returns v in MessagePack.
func packed(t testing.TB, v any) []byte {
	t.Helper()
	b, err := msgp.AppendIntf(nil, v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

type object = map[string]any

func TestAppendJSON(t *testing.T) {
	f := func(v any, want string) {
		t.Helper()
		got, err := AppendJSON([]byte("before "), packed(t, v), 1<<20)
		if want == "" {
			if k := vectord.KindOf(err); k != vectord.KindInvalid || string(got) != "before " {
				t.Errorf("%v is %s, %v", v, got, err)
			}
			return
		}
		if string(got) != "before "+want || err != nil {
			t.Errorf("%v is %s, %v\nwant %s", v, got, err, want)
		}
	}
	floats := []byte{0, 0, 0x80, 0x3f, 0, 0, 0, 0xbf, 0xcd, 0xcc, 0xcc, 0x3d}
	f(nil, "null")
	f(true, "true")
	f(-5, "-5")
	f(uint64(1<<64-1), "18446744073709551615")
	f(0.1, "0.1")
	f(float32(0.1), "0.1")
	f("a\"\n\u2028é", `"a\"\n`+"\u2028"+`é"`)
	f([]any{1, "x", []any{}}, `[1,"x",[]]`)
	f(object{"vector": floats}, `{"vector":[1,-0.5,0.1]}`)
	f(object{"vector": object{"a": floats}}, `{"vector":{"a":[1,-0.5,0.1]}}`)
	f(object{"points": []any{object{"vector": []any{floats, floats}}}}, `{"points":[{"vector":[[1,-0.5,0.1],[1,-0.5,0.1]]}]}`)
	f(object{"query": floats[:4]}, `{"query":[1]}`)
	f(object{"payload": []byte(`{"a": [1]}`)}, `{"payload":{"a": [1]}}`)
	f(object{"payload": object{"a": "x"}}, `{"payload":{"a":"x"}}`)
	f(object{"payload": object{"vector": floats}}, "")
	f(object{"payload": []any{floats}}, "")
	f(object{"payload": []byte(`1},"x":{`)}, "")
	f(object{"result": []byte{}}, "")
	f(object{"vector": floats[:5]}, "")
	f(object{"vector": []byte{0, 0, 0xc0, 0x7f}}, "") // not a number
	f("\xff", "")
	refused := func(b ...byte) {
		t.Helper()
		if got, err := AppendJSON(nil, b, 1<<20); vectord.KindOf(err) != vectord.KindInvalid {
			t.Errorf("% x is %s, %v", b, got, err)
		}
	}
	refused()
	refused(1, 2)                         // two values
	refused(0xc1)                         // no type
	refused(0xd4, 1, 2)                   // an extension
	refused(0x81, 1, 2)                   // a number as a name
	refused(0xdf, 0xff, 0xff, 0xff, 0xff) // a map of four billion
	deep := func(n int) []byte { return append(bytes.Repeat([]byte{0x91}, n), 0xc0) }
	refused(deep(MaxTranscodeDepth + 1)...)
	if _, err := AppendJSON(nil, deep(MaxTranscodeDepth), 1<<20); err != nil {
		t.Error(err)
	}
	if _, err := AppendJSON(nil, packed(t, object{"vector": make([]byte, 400)}), 100); vectord.KindOf(err) != vectord.KindTooLarge {
		t.Errorf("201 bytes in 100: %v", err)
	}
}

func TestAppendMsgpack(t *testing.T) {
	f := func(text string, want any) {
		t.Helper()
		got, err := AppendMsgpack([]byte("before "), []byte(text))
		if err != nil || !bytes.HasPrefix(got, []byte("before ")) {
			t.Fatalf("%s: %v", text, err)
		}
		back, rest, err := msgp.ReadIntfBytes(got[len("before "):])
		if err != nil || len(rest) > 0 || !reflect.DeepEqual(back, want) {
			t.Errorf("%.80s is %#v, %v, want %#v", text, back, err, want)
		}
	}
	f(`null`, nil)
	f(` [true, -3, 2.5, "a\u00e9"] `, []any{true, int64(-3), 2.5, "aé"})
	f(`18446744073709551615`, uint64(1<<64-1))
	one := []byte{0, 0, 0x80, 0x3f}
	f(`{"result":[{"id":1,"vector":[1]}]}`, object{"result": []any{object{"id": int64(1), "vector": one}}})
	f(`{"result":{"vector":{"a":[1],"b":[[1],[1]],"c":{"indices":[1],"values":[1]}}}}`,
		object{"result": object{"vector": object{"a": one, "b": []any{one, one}, "c": object{"indices": []any{int64(1)}, "values": one}}}})
	f(`{"payload":{"vector":[1]},"vector":[]}`, object{"payload": object{"vector": []any{int64(1)}}, "vector": []any{}})
	f(`{"result":{"result":{"vector":[1]}}}`, object{"result": object{"result": object{"vector": []any{int64(1)}}}})
	for _, n := range []int{15, 16, 65535, 65536} {
		list, members := make([]any, n), object{}
		for i := range list {
			list[i] = int64(i % 100)
			members[string(rune('a'+i%26))+strings.Repeat("x", i/26%50)+string(rune(0x4e00+i/1300))] = list[i]
		}
		for _, v := range []any{list, members} {
			text, _ := json.Marshal(v)
			f(string(text), v)
		}
	}
	for _, text := range []string{``, `{`, `[1,`, `{"a"}`, `1 2`, `1e999`, `nul`, strings.Repeat("[", MaxTranscodeDepth+1) + strings.Repeat("]", MaxTranscodeDepth+1)} {
		if got, err := AppendMsgpack(nil, []byte(text)); vectord.KindOf(err) != vectord.KindInvalid {
			t.Errorf("%.40q is % x, %v", text, got, err)
		}
	}
}

// TestThereAndBack checks that what became MessagePack says as JSON what it said before.
func TestThereAndBack(t *testing.T) {
	text := `{"points":[{"id":"6ba7b810-9dad-11d1-80b4-00c04fd430c8","version":3,"score":0.87,"payload":{"a":[1,2.5,{"b":null}],"vector":[1,2]},` +
		`"vector":{"x":[0.1,-3,1e-7],"s":{"indices":[1,70000],"values":[0.5,2]}}}],"status":"ok","time":0.000012}`
	b, err := AppendMsgpack(nil, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := AppendJSON(nil, b, len(text)); string(got) != text {
		t.Errorf("got  %s, %v\nwant %s", got, err, text)
	}
}

func FuzzAppendJSON(f *testing.F) {
	for _, m := range messages() {
		b, _ := m.MarshalMsg(nil)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		text, err := AppendJSON(nil, b, 1<<16)
		if err != nil {
			return
		}
		if len(text) > 1<<16 || !json.Valid(text) {
			t.Fatalf("%d bytes, not JSON: %q", len(text), text)
		}
		if _, err := AppendMsgpack(nil, text); err != nil {
			t.Fatalf("%q does not go back: %v", text, err)
		}
	})
}

func FuzzAppendMsgpack(f *testing.F) {
	f.Add([]byte(`{"result":[{"id":1,"vector":[1,2]}],"payload":{"a":"x"}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		b, err := AppendMsgpack(nil, text)
		if err != nil {
			return
		}
		if rest, err := msgp.Skip(b); err != nil || len(rest) > 0 {
			t.Fatalf("%q is no MessagePack: % x, %v", text, b, err)
		}
	})
}
