package dataset

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/vectord/vectord"
)

// readAll collects copies of all points that r yields.
func readAll(r Reader) (points []vectord.Point, err error) {
	for {
		p, err := r.Next()
		if err == io.EOF {
			return points, nil
		}
		if err != nil {
			return points, err
		}
		p.Vectors = vectord.Unnamed(append([]float32(nil), p.Vectors.Unnamed()...))
		p.Payload = bytes.Clone(p.Payload)
		points = append(points, p)
	}
}

func numbered(vectors ...[]float32) (points []vectord.Point) {
	for i, v := range vectors {
		points = append(points, vectord.Point{ID: vectord.NumberID(uint64(i)), Vectors: vectord.Unnamed(v)})
	}
	return points
}

func TestRoundTrips(t *testing.T) {
	vectors := [][]float32{{1, -2, 0.1}, {math.MaxFloat32, math.SmallestNonzeroFloat32, -0}, {3, 4, 5}}
	points := numbered(vectors...)
	f := func(name string, file []byte, want []vectord.Point) {
		t.Helper()
		r, err := NewReader(name, bytes.NewReader(file), Options{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := readAll(r)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, %v, want %v", name, got, err, want)
		}
	}
	var fvecs, lines []byte
	npy := AppendNPYHeader(nil, len(vectors), 3)
	if len(npy)%64 != 0 {
		t.Errorf("the npy header has %d bytes, not a multiple of 64", len(npy))
	}
	withPayload := numbered(vectors...)
	withPayload[1].ID = vectord.UUIDID([16]byte{1})
	withPayload[1].Payload = []byte(`{"word": "king", "n": 1.0}`)
	for i, v := range vectors {
		fvecs = AppendFVec(fvecs, v)
		npy = AppendNPYRow(npy, v)
		lines = AppendJSONLine(lines, withPayload[i])
	}
	f("a.fvecs", fvecs, points)
	f("a.FVECS", nil, nil)
	f("a.npy", npy, points)
	f("a.jsonl", lines, withPayload)
	f("a.ndjson", append([]byte("\n \r\n"), bytes.TrimSpace(lines)...), withPayload)

	rows := [][]int32{{1, -1}, {math.MaxInt32, 0}}
	var ivecs []byte
	for _, row := range rows {
		ivecs = AppendIVec(ivecs, row)
	}
	if got, err := ReadIVecs(bytes.NewReader(ivecs), 10); err != nil || !reflect.DeepEqual(got, rows) {
		t.Errorf("ivecs: %v, %v", got, err)
	}
	if got, err := ReadIVecs(bytes.NewReader(ivecs), 1); err != nil || len(got) != 1 {
		t.Errorf("ivecs with limit 1: %v, %v", got, err)
	}
}

// npyFile builds a file of the given version, header and values.
func npyFile(major byte, header string, values ...byte) []byte {
	b := append([]byte(npyMagic), major, 0)
	if major == 1 {
		b = binary.LittleEndian.AppendUint16(b, uint16(len(header)))
	} else {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(header)))
	}
	return append(append(b, header...), values...)
}

func npyHeaderText(descr string) string {
	return "{'descr': '" + descr + "', 'fortran_order': False, 'shape': (1, 2), }\n"
}

func TestNPYTypes(t *testing.T) {
	f := func(descr string, values []byte, want ...float32) {
		t.Helper()
		for major := byte(1); major <= 3; major++ {
			r, err := NewNPYReader(bytes.NewReader(npyFile(major, npyHeaderText(descr), values...)))
			if err != nil {
				t.Errorf("%s: %v", descr, err)
				return
			}
			if got, err := readAll(r); err != nil || !reflect.DeepEqual(got, numbered(want)) {
				t.Errorf("%s version %d: %v, %v, want %v", descr, major, got, err, want)
			}
		}
	}
	little := func(v any) []byte { b, _ := binary.Append(nil, binary.LittleEndian, v); return b }
	big := func(v any) []byte { b, _ := binary.Append(nil, binary.BigEndian, v); return b }
	f("<f4", little([]float32{1.5, -2}), 1.5, -2)
	f(">f4", big([]float32{1.5, -2}), 1.5, -2)
	f("<f8", little([]float64{0.1, -1e-60}), 0.1, float32(math.Copysign(0, -1)))
	f(">f8", big([]float64{0.1, 7}), 0.1, 7)
	f("|i1", []byte{0xff, 127}, -1, 127)
	f("|u1", []byte{0xff, 127}, 255, 127)
	f("|b1", []byte{0, 1}, 0, 1)
	f("<i2", little([]int16{-2, 300}), -2, 300)
	f("<u2", little([]uint16{65535, 1}), 65535, 1)
	f(">i4", big([]int32{-2, 1 << 30}), -2, 1<<30)
	f("<u4", little([]uint32{1 << 31, 1}), 1<<31, 1)
	f("<i8", little([]int64{-1 << 62, 1}), -1<<62, 1)
	f("<u8", little([]uint64{1 << 63, 1}), 1<<63, 1)
	f("<f2", little([]uint16{0x3c00, 0xc000}), 1, -2)
	f("<f2", little([]uint16{0x0001, 0x7bff}), 0x1p-24, 65504)
	f("<f2", little([]uint16{0x83ff, 0x0400}), -1023*0x1p-24, 0x1p-14)
}

// TestRefused feeds damaged files; each must be refused with an error that says what is wrong, and where.
func TestRefused(t *testing.T) {
	f := func(name string, file []byte, want string) {
		t.Helper()
		r, err := NewReader(name, bytes.NewReader(file), Options{})
		if err == nil {
			_, err = readAll(r)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s %.60q: error %v, want %q in it", name, file, err, want)
		}
	}
	f("a.csv", nil, `unknown data format ".csv"`)

	row := AppendFVec(nil, []float32{1, 2})
	f("a.fvecs", row[:len(row)-1], "row 0: the data ends in the middle")
	f("a.fvecs", row[:4], "row 0: the data ends in the middle")
	f("a.fvecs", append(bytes.Clone(row), 2, 0, 0), "row 1: the data ends in the middle")
	f("a.fvecs", AppendFVec(bytes.Clone(row), []float32{1, 2, 3}), "row 1: it has 3 components, the rows before it 2")
	f("a.fvecs", []byte{0, 0, 0, 0}, "row 0: dimension 0 invalid")
	f("a.fvecs", []byte{255, 255, 255, 255}, "row 0: dimension -1 invalid")
	f("a.fvecs", []byte{1, 0, 1, 0}, "row 0: dimension 65537 invalid")
	f("a.fvecs", AppendFVec(bytes.Clone(row), []float32{1, float32(math.NaN())}), "row 1: component 1 is NaN")
	f("a.fvecs", AppendFVec(nil, []float32{float32(math.Inf(-1))}), "row 0: component 0 is -Inf")

	good := npyHeaderText("<f4")
	f("a.npy", nil, "too short")
	f("a.npy", []byte("\x93NUMPX\x01\x00\x00\x00"), "not with the magic")
	f("a.npy", npyFile(4, good), "version 4.0 is unknown")
	f("a.npy", npyFile(1, good)[:30], "too short")
	f("a.npy", append([]byte(npyMagic), 2, 0, 255, 255, 255, 255), "length 4294967295 is above the limit")
	f("a.npy", npyFile(1, good, 1, 2, 3), "row 0 of 1: the data ends in the middle")
	f("a.npy", npyFile(1, good, 0, 0, 0, 0, 0, 0, 0, 0, 0), "goes on after the 1 rows")
	f("a.npy", npyFile(1, npyHeaderText("<c8")), `type "<c8" cannot be read`)
	f("a.npy", npyFile(1, npyHeaderText("f4")), `type "f4" cannot be read`)
	f("a.npy", npyFile(1, npyHeaderText("<f8"), 0, 0, 0, 0, 0, 0, 0xf0, 0x7f, 0, 0, 0, 0, 0, 0, 0, 0), "component 0 is +Inf")
	header := func(text, want string) { t.Helper(); f("a.npy", npyFile(1, text), want) }
	header("{'descr': '<f4', 'fortran_order': True, 'shape': (1, 2)}", "Fortran order")
	header("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", "has 1 dimensions")
	header("{'descr': '<f4', 'fortran_order': False, 'shape': ()}", "has 0 dimensions")
	header("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2, 3)}", "has 3 dimensions")
	header("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 0)}", "dimension 0 invalid")
	header("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 9223372036854775807)}", "dimension 9223372036854775807 invalid")
	header("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 9223372036854775808)}", "expected a length")
	header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 2)}", "expected a length")
	header("{'descr': '<f4', 'fortran_order': False, 'shape': ("+strings.Repeat("1,", 40)+")}", "more than 32")
	header("{'descr': '<f4', 'fortran_order': False}", "must all be there")
	header("{'descr': '<f4', 'descr': '<f4', 'shape': (1, 2)}", "comes twice")
	header("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), 'x': 1}", `the key "x" is unknown`)
	header("{'descr': '<f4', 'fortran_order': 0, 'shape': (1, 2)}", "expected True or False")
	header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1, 2)}", "expected a string")
	header("{'descr", "has no end")
	header("{", "expected a string")
	header("", `expected "{"`)
	header(strings.TrimSpace(good)+"x", "follows the dictionary")

	f("a.jsonl", []byte("{\"id\":1,\"vector\":[1]}\n{\"id\":2}"), "line 2: vector: missing or empty")
	f("a.jsonl", []byte(`{"id":1,"vector":[]}`), "line 1: vector: missing or empty")
	f("a.jsonl", []byte(`{"vector":[1]}`), "line 1: id: missing")
	f("a.jsonl", []byte(`{"id":"doc-1","vector":[1]}`), `line 1: id: value "doc-1" is not a valid point ID`)
	f("a.jsonl", []byte(`{"id":-1,"vector":[1]}`), "not a valid point ID")
	f("a.jsonl", []byte(`{"id":1,"vector":[1,null]}`), "line 1: vector: component 1: expected a number")
	f("a.jsonl", []byte(`{"id":1,"vector":[1e39]}`), "component 0: expected a number within the range")
	f("a.jsonl", []byte(`{"id":1,"vector":"x"}`), "expected an array")
	f("a.jsonl", []byte(`{"id":1,"vectr":[1]}`), "vectr: unknown field")
	f("a.jsonl", []byte(`{"id":1,"vector":[1],"payload":[1]}`), "payload: expected an object")
	f("a.jsonl", []byte(`{"id":1,`), "line 1: unexpected end")
	f("a.jsonl", []byte("null"), "line 1: id: missing")
	f("a.jsonl", bytes.Repeat([]byte(" "), LineBytesMax+2), "line 1: longer than the limit")
}

func TestJSONLIDs(t *testing.T) {
	f := func(file string, o Options, want ...vectord.PointID) {
		t.Helper()
		points, err := readAll(NewJSONLReader(strings.NewReader(file), o))
		if err != nil {
			t.Errorf("%s: %v", file, err)
		}
		var got []vectord.PointID
		for _, p := range points {
			got = append(got, p.ID)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: ids %v, want %v", file, got, want)
		}
	}
	f(`{"id":18446744073709551615,"vector":[1],"payload":null}`, Options{}, vectord.NumberID(math.MaxUint64))
	f(`{"key":5,"vector":[1]}`, Options{IDField: "key"}, vectord.NumberID(5))
	f("{\"vector\":[1]}\n\n{\"id\":\"doc-1\",\"vector\":[1]}", Options{NumberRows: true}, vectord.NumberID(0), vectord.NumberID(1))
}

// TestHostileHeaderAllocatesLittle checks that a claim of many or long rows takes no memory before the rows are there.
func TestHostileHeaderAllocatesLittle(t *testing.T) {
	const allowed = 2 << 20
	f := func(name string, file []byte) {
		t.Helper()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r, err := NewReader(name, bytes.NewReader(file), Options{})
		if err == nil {
			_, err = ReadVectors(r, math.MaxInt)
		}
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%s was accepted", name)
		}
		if got := after.TotalAlloc - before.TotalAlloc; got > allowed {
			t.Errorf("%s allocated %d bytes", name, got)
		}
	}
	f("a.fvecs", []byte{0, 0, 1, 0}) // 65536 components
	f("a.npy", npyFile(1, "{'descr': '<f8', 'fortran_order': False, 'shape': (4611686018427387904, 65536)}"))
	f("a.npy", append([]byte(npyMagic), 3, 0, 0, 0, 1, 0)) // a header of 64 KiB
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	rows := AppendFVec(AppendFVec(nil, []float32{1, 2}), []float32{3, 4})
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	w.Write(rows)
	w.Close()

	for _, path := range []string{write("plain.fvecs", rows), write("packed.fvecs.gz", packed.Bytes())} {
		v, err := LoadVectors(path, 10)
		if err != nil || v.Len() != 2 || !reflect.DeepEqual(v.At(1), []float32{3, 4}) {
			t.Errorf("%s: %v, %v", path, v, err)
		}
		f, err := Open(path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		readAll(f)
		if read, size := f.Position(); read != size || size == 0 {
			t.Errorf("%s: at %d of %d after the last point", path, read, size)
		}
		f.Close()
	}
	if v, err := LoadVectors(filepath.Join(dir, "plain.fvecs"), 1); err != nil || v.Len() != 1 {
		t.Errorf("limit 1: %v, %v", v, err)
	}
	f := func(path, want string) {
		t.Helper()
		if _, err := LoadVectors(path, 10); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("LoadVectors(%s): %v, want %q in it", path, err, want)
		}
	}
	f(filepath.Join(dir, "absent.npy"), "no such file")
	f(dir, "is a directory")
	f(write("empty.fvecs", nil), "the data set is empty")
	f(write("torn.fvecs.gz", packed.Bytes()[:packed.Len()-6]), "the data ends in the middle")
	f(write("plain.npy.gz", rows), "gzip")
}

// fuzzReader checks what holds for every input: no panic, no endless stream, points as promised, errors that stay.
func fuzzReader(f *testing.F, name string) {
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := NewReader(name, bytes.NewReader(b), Options{})
		if err != nil {
			return
		}
		for n := 0; ; n++ {
			p, err := r.Next()
			if err != nil {
				return
			}
			if len(p.Vectors.Unnamed()) == 0 || len(p.Vectors.Unnamed()) > vectord.MaxDimension {
				t.Fatalf("a vector of %d components", len(p.Vectors.Unnamed()))
			}
			if err := checkFinite(p.Vectors.Unnamed()); err != nil {
				t.Fatal(err)
			}
			if n > len(b) {
				t.Fatalf("more than %d points from %d bytes", n, len(b))
			}
		}
	})
}

func FuzzFVecs(f *testing.F) {
	f.Add(AppendFVec(AppendFVec(nil, []float32{1, 2}), []float32{3, 4}))
	f.Add([]byte{255, 255, 0, 0})
	fuzzReader(f, "a.fvecs")
}

func FuzzNPY(f *testing.F) {
	f.Add(AppendNPYRow(AppendNPYHeader(nil, 1, 2), []float32{1, 2}))
	f.Add(npyFile(3, npyHeaderText(">f2"), 1, 2, 3, 4))
	f.Add(npyFile(2, npyHeaderText("|u1"), 1, 2))
	fuzzReader(f, "a.npy")
}

func FuzzJSONL(f *testing.F) {
	f.Add([]byte(`{"id":1,"vector":[1,2.5],"payload":{"a":1}}`))
	f.Add([]byte("\n\n{\"vector\":[1],\"id\":\"00000000-0000-0000-0000-000000000001\"}\n"))
	fuzzReader(f, "a.jsonl")
}

func FuzzIVecs(f *testing.F) {
	f.Add(AppendIVec(nil, []int32{1, 2}))
	f.Fuzz(func(t *testing.T, b []byte) {
		rows, err := ReadIVecs(bytes.NewReader(b), 100)
		if err != nil {
			return
		}
		var again []byte
		for _, row := range rows {
			again = AppendIVec(again, row)
		}
		if !bytes.HasPrefix(b, again) {
			t.Fatalf("%x read as %v", b, rows)
		}
	})
}
