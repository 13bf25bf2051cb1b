package bench

import (
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"
)

// line returns a report as the drivers print it.
func line(t *testing.T, engine, codec string, buildSeconds float64, rows ...ANNRow) string {
	t.Helper()
	b, err := json.Marshal(EngineReport{engine, ANNReport{N: 1000, Dim: 10, Metric: "Cosine", Codec: codec, BuildSeconds: buildSeconds, Memory: 4 << 20, Rows: rows}})
	if err != nil {
		t.Fatal(err)
	}
	return string(b) + "\n"
}

func row(ef int, recall, qps float64) ANNRow { return ANNRow{Ef: ef, Recall: recall, QPS: qps} }

func TestCompare(t *testing.T) {
	text := line(t, "hnswlib", "float32", 3, row(10, 0.9, 100), row(20, 0.96, 50)) +
		line(t, "", "int8", 1, row(10, 0.5, 7)) +
		line(t, "hnswlib", "float32", 1, row(10, 0.9, 300), row(20, 0.96, 60)) +
		line(t, "hnswlib", "float32", 2, row(10, 0.8, 200), row(20, 1, 10)) +
		line(t, "faiss", "sq8", 1, row(10, 0.5, 7)) + line(t, "faiss", "sq8", 2, row(10, 0.6, 8))
	c, err := Compare(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	f := func(i int, name string, runs int, buildSeconds float64, rows ...ANNRow) {
		t.Helper()
		got := c.Engines[i]
		if got.Name() != name || c.Runs[i] != runs || got.BuildSeconds != buildSeconds || len(got.Rows) != len(rows) || got.Memory != 4<<20 {
			t.Fatalf("engine %d: %+v of %d runs", i, got, c.Runs[i])
		}
		for j := range rows {
			if got.Rows[j] != rows[j] {
				t.Errorf("engine %d, row %d: %+v, want %+v", i, j, got.Rows[j], rows[j])
			}
		}
	}
	if len(c.Engines) != 3 {
		t.Fatalf("%d engines", len(c.Engines))
	}
	f(0, "hnswlib", 3, 2, row(10, 0.9, 200), row(20, 0.96, 50))
	f(1, "vectord int8", 1, 1, row(10, 0.5, 7))
	f(2, "faiss sq8", 2, 1.5, row(10, 0.55, 7.5))

	// Two engines have no recall that is worth drawing.
	if p := c.Plot("x"); len(p.Series) != 1 || p.Series[0].Name != "hnswlib" || len(p.Series[0].Points) != 2 {
		t.Errorf("plot %+v", p)
	}
}

func TestCompareRefuses(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		if _, err := Compare(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: error %v, want %q in it", text, err, want)
		}
	}
	good := line(t, "a", "b", 1, row(10, 0.5, 1))
	f("", "no reports")
	f("{", "line 1")
	f(good+"x\n", "line 2")
	f(good+strings.Replace(good, `"n":1000`, `"n":999`, 1), "line 2: a b was measured on 999 × 10 Cosine")
	f(good+strings.Replace(good, "Cosine", "Dot", 1), "line 2")
	f(good+line(t, "a", "b", 1, row(11, 0.5, 1)), "at other ef")
	f(line(t, "a", "b", 0, row(10, 0.5, 1)), "no build time")
	f(line(t, "a", "b", 1), "no rows")
	f(line(t, "a", "b", 1, row(10, 1.5, 1)), "recall 1.5")
	f(line(t, "a", "b", 1, row(10, 0.5, 0)), "0 queries/s")
	f(strings.Repeat("x", compareLineMax+1), "too long")
}

func TestAtRecall(t *testing.T) {
	r := ANNReport{Rows: []ANNRow{row(100, 0.97, 100), row(10, 0.93, 1000), row(1000, 0.98, 20)}} // in any order
	f := func(recall, qps, ef float64, atLeast bool) {
		t.Helper()
		got := r.atRecall(recall)
		if math.Abs(got.qps-qps) > 1e-6*qps || math.Abs(got.ef-ef) > 1e-6*ef || got.atLeast != atLeast {
			t.Errorf("at recall %v: %+v, want %v queries/s at ef %v", recall, got, qps, ef)
		}
	}
	f(0.90, 1000, 10, true)
	f(0.93, 1000, 10, false)
	f(0.95, math.Sqrt(1000*100), math.Sqrt(10*100), false) // half way
	f(0.97, 100, 100, false)
	f(0.98, 20, 1000, false)
	f(0.981, 0, 0, false)
}

func ExampleComparison_WriteTable() {
	c, _ := Compare(strings.NewReader(`
{"engine":"vectord","n":1000,"dim":4,"metric":"Dot","codec":"int8","build_seconds":0.5,"bytes_in_memory":1048576,"rows":[{"ef":10,"recall":0.94,"qps":9000},{"ef":20,"recall":0.96,"qps":4000}]}
{"engine":"hnswlib","n":1000,"dim":4,"metric":"Dot","codec":"float32","build_seconds":1,"bytes_in_memory":2097152,"rows":[{"ef":10,"recall":0.96,"qps":2000},{"ef":20,"recall":1,"qps":500}]}
`[1:]))
	c.WriteTable(os.Stdout)
	// Output:
	// 1000 × 4 Dot · medians
	//
	//         engine  runs  build s  vectors/s  to hnswlib  MiB  queries/s at 0.95  ef  to hnswlib  queries/s at 0.99  ef  to hnswlib  best recall
	//         ------  ----  -------  ---------  ----------  ---  -----------------  --  ----------  -----------------  --  ----------  -----------
	//   vectord int8     1      0.5       2000       2.00×    1               6000  14       3.00×                  –   –           –       0.9600
	//        hnswlib     1      1.0       1000       1.00×    2             ≥ 2000  10       1.00×                707  17       1.00×       1.0000
}

func FuzzCompare(f *testing.F) {
	f.Add(`{"engine":"a","n":1,"dim":1,"build_seconds":1,"rows":[{"ef":1,"recall":1,"qps":1},{"ef":1,"recall":0,"qps":1}]}`)
	f.Add(`{"build_seconds":1e-300,"n":9,"rows":[{"ef":-1,"recall":0.9,"qps":1e300}]}` + "\n{}")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Compare(strings.NewReader(text))
		if err != nil {
			return
		}
		var b strings.Builder
		if err := c.WriteTable(&b); err != nil || !strings.Contains(b.String(), c.Engines[0].Name()) {
			t.Fatalf("table %q, %v", b.String(), err)
		}
	})
}
