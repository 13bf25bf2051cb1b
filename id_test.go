package vectord

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"testing"
)

func TestParsePointID(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		id, err := ParsePointID(text)
		if err != nil || id.String() != want {
			t.Errorf("%q is %v, %v; want %s", text, id, err, want)
		}
	}
	f("0", "0")
	f("18446744073709551615", "18446744073709551615")
	f("0f8fad5b-d9cb-469f-a165-70867728950e", "0f8fad5b-d9cb-469f-a165-70867728950e")
	f("0F8FAD5BD9CB469FA16570867728950E", "0f8fad5b-d9cb-469f-a165-70867728950e")
	f("urn:uuid:0f8fad5b-d9cb-469f-a165-70867728950E", "0f8fad5b-d9cb-469f-a165-70867728950e")
	f("URN:UUID:0f8fad5b-d9cb-469f-a165-70867728950e", "0f8fad5b-d9cb-469f-a165-70867728950e")
	for _, bad := range []string{"", "-1", "+1", "1.0", "1e3", "18446744073709551616", "x", "0f8fad5b-d9cb-469f-a165-70867728950",
		"0f8fad5b-d9cb-469f-a165_70867728950e", "0f8fad5bd9cb-469f-a165-70867728950e", "0f8fad5b-d9cb-469f-a165-70867728950g"} {
		if id, err := ParsePointID(bad); KindOf(err) != KindInvalid {
			t.Errorf("%q is %v, %v", bad, id, err)
		}
	}
}

func TestPointIDOrder(t *testing.T) {
	ids := []PointID{NumberID(0), NumberID(1), NumberID(255), NumberID(256), NumberID(math.MaxUint64),
		UUIDID([16]byte{}), UUIDID([16]byte{15: 1}), UUIDID([16]byte{0: 1}), UUIDID([16]byte{0: 255})}
	for i, a := range ids {
		for j, b := range ids {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			if got := a.Compare(b); got != want {
				t.Errorf("compare %s with %s: %d, want %d", a, b, got, want)
			}
			if got := bytes.Compare(a.AppendBinary(nil), b.AppendBinary(nil)); got != want {
				t.Errorf("the binary forms of %s and %s compare as %d, want %d", a, b, got, want)
			}
		}
	}
}

// TestPointIDHashIsAFormat pins hashes: points are found in the shard that their hash names.
func TestPointIDHashIsAFormat(t *testing.T) {
	f := func(id PointID, want uint64) {
		t.Helper()
		if got := id.Hash(); got != want {
			t.Errorf("hash of %s is %#x, want %#x", id, got, want)
		}
	}
	f(NumberID(0), 0xe220a8397b1dcdaf)
	f(NumberID(1), 0x910a2dec89025cc1)
	f(UUIDID([16]byte{1, 15: 2}), 0x9702d4a4950358e3)
}

func FuzzPointIDJSON(f *testing.F) {
	for _, seed := range []string{"0", "18446744073709551615", `"0f8fad5b-d9cb-469f-a165-70867728950e"`, `"5"`, "-0", "1e5", "null", `"urn:uuid:`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var id PointID
		if err := id.UnmarshalJSON(b); err != nil {
			if KindOf(err) != KindInvalid {
				t.Fatalf("%q: error of kind %v", b, KindOf(err))
			}
			return
		}
		encoded, err := json.Marshal(id)
		if err != nil {
			t.Fatal(err)
		}
		var again PointID
		if err := json.Unmarshal(encoded, &again); err != nil || again != id {
			t.Fatalf("%q is %s, its encoding %q is %s (%v)", b, id, encoded, again, err)
		}
		if decoded, rest, err := DecodePointID(id.AppendBinary(nil)); err != nil || len(rest) != 0 || decoded != id {
			t.Fatalf("the binary form of %s is read as %s (%v)", id, decoded, err)
		}
	})
}

func FuzzDecodePointID(f *testing.F) {
	f.Add(NumberID(7).AppendBinary(nil))
	f.Add(UUIDID([16]byte{9}).AppendBinary([]byte{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, rest, err := DecodePointID(b)
		if err == nil && !bytes.Equal(append(id.AppendBinary(nil), rest...), b) {
			t.Fatalf("% x is read as %s and % x", b, id, rest)
		}
	})
}

func TestNormalize(t *testing.T) {
	f := func(v, want []float32) {
		t.Helper()
		got := slices.Clone(v)
		Normalize(got)
		for i := range got {
			if math.Abs(float64(got[i]-want[i])) > 1e-6 {
				t.Errorf("%v becomes %v, want %v", v, got, want)
				return
			}
		}
		again := slices.Clone(got)
		Normalize(again)
		if !slices.Equal(again, got) {
			t.Errorf("normalised once %v, twice %v", got, again)
		}
	}
	f([]float32{3, 4}, []float32{0.6, 0.8})
	f([]float32{0, 0}, []float32{0, 0})
	f([]float32{1e-30, 0}, []float32{1, 0})
	f([]float32{math.MaxFloat32, math.MaxFloat32}, []float32{math.Sqrt2 / 2, math.Sqrt2 / 2})
}

func TestCheckCollectionName(t *testing.T) {
	for _, good := range []string{"a", "Words 2", "ключ", "a.b-c_d", string(bytes.Repeat([]byte("x"), 255))} {
		if err := CheckCollectionName(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "a/b", `a\b`, "a:b", "a*", "a?", "a<", "a>", "a|", `a"`, "a\x00", "a\x1f", "\xff", string(bytes.Repeat([]byte("x"), 256))} {
		if err := CheckCollectionName(bad); KindOf(err) != KindUnprocessable {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestCollectionConfigValidate(t *testing.T) {
	f := func(change func(*CollectionConfig), want Kind) {
		t.Helper()
		c := DefaultCollectionConfig(4, Cosine)
		change(&c)
		if err := c.Validate(); err == nil || KindOf(err) != want {
			t.Errorf("%+v: %v", c, err)
		}
	}
	ok := DefaultCollectionConfig(MaxDimension, Manhattan)
	if err := ok.Validate(); err != nil {
		t.Error(err)
	}
	vector := func(name string, v VectorParams) func(*CollectionConfig) {
		return func(c *CollectionConfig) { c.Params.Vectors[name] = v }
	}
	f(vector("", VectorParams{Size: 1}), KindInvalid)
	f(vector("", VectorParams{Distance: Dot}), KindUnprocessable)
	f(vector("a", VectorParams{Size: MaxDimension + 1, Distance: Dot}), KindUnprocessable)
	f(vector("a/b", VectorParams{Size: 1, Distance: Dot}), KindUnprocessable)
	f(vector("a", VectorParams{Size: 1, Distance: Dot, Datatype: "turbo4"}), KindUnsupported)
	f(vector("a", VectorParams{Size: 1, Distance: Dot, Multi: &MultiParams{Comparator: "min_sim"}}), KindInvalid)
	f(vector("a", VectorParams{Size: 1, Distance: Dot, HNSW: []byte(`{"m":1}`)}), KindUnprocessable)
	f(vector("a", VectorParams{Size: 1, Distance: Manhattan, Quantization: []byte(`{"binary":{}}`)}), KindInvalid)
	f(func(c *CollectionConfig) { c.Params.SparseVectors = map[string]SparseParams{"": {}} }, KindInvalid)
	f(func(c *CollectionConfig) { c.Params.SparseVectors = map[string]SparseParams{"s": {Modifier: "tf"}} }, KindInvalid)
	f(func(c *CollectionConfig) { c.Params.ShardNumber = 0 }, KindUnprocessable)
	f(func(c *CollectionConfig) { c.HNSW.M = 1 }, KindUnprocessable)
	f(func(c *CollectionConfig) { c.HNSW.EfConstruct = 3 }, KindUnprocessable)
}

func TestJSONDepth(t *testing.T) {
	f := func(text string, want int) {
		t.Helper()
		if got := JSONDepth([]byte(text)); got != want {
			t.Errorf("depth of %s is %d, want %d", text, got, want)
		}
	}
	f(`1`, 0)
	f(`{}`, 1)
	f(`{"a":[{"b":[]}]}`, 4)
	f(`"[[[["`, 0)
	f(`{"a\"[[":"\\","b":[1]}`, 2)
}
