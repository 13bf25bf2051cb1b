package bench

import (
	"context"
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/vectord/vectord"
)

// TestChurn changes a graph through more cycles than there are slots, so that slots come round, and checks that it
// still finds everything and has not grown.
func TestChurn(t *testing.T) {
	f := func(name string, c Churn, wantSteps ...string) {
		t.Helper()
		c.Base, c.Queries = randomVectors(7, 1500, 8), randomVectors(8, 30, 8)
		c.K, c.M, c.EfConstruct, c.Codec, c.Ef, c.Share = 10, 8, 60, vectord.CodecInt8, 400, 0.3
		steps := 0
		report, err := c.Run(t.Context(), func(string) { steps++ })
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if report.N != c.held() || report.Dim != 8 || report.Metric != c.Metric.String() || steps == 0 || len(report.Rows) != len(wantSteps) {
			t.Fatalf("%s: %+v after %d steps", name, report, steps)
		}
		for i, row := range report.Rows {
			if row.Step != wantSteps[i] || row.Recall < 0.99 || row.Recall > 1 || row.Memory <= 0 || row.Goroutines < 1 || row.InsertMicros <= 0 {
				t.Errorf("%s: row %+v, want step %s", name, row, wantSteps[i])
			}
			if changed := i > 0 && row.Step != "anew"; changed != (row.DeleteMicros > 0) {
				t.Errorf("%s: deletes of row %+v", name, row)
			}
			if int(row.Slots) < c.held() || int(row.Slots) > c.held()+churnFreeMin {
				t.Errorf("%s: %d slots for %d vectors", name, row.Slots, c.held())
			}
			if runtime.GOOS == "linux" && row.Resident < row.Memory {
				t.Errorf("%s: %d bytes resident, of which the graph has %d", name, row.Resident, row.Memory)
			}
		}
		var text strings.Builder
		if err := report.WriteTable(&text); err != nil || strings.Count(text.String(), "\n") != 4+len(wantSteps) {
			t.Errorf("%s: table %q, %v", name, text.String(), err)
		}
	}
	f("the same vectors", Churn{Metric: vectord.Cosine, Threads: 2, Rounds: 2}, "built", "1", "2")
	f("halves swapped, and then again", Churn{Metric: vectord.Euclid, Threads: 1, Rounds: 4, Replace: true}, "built", "1", "2", "3", "4", "anew")
	f("one cycle after the other", Churn{Metric: vectord.Euclid, Threads: 1, Cycles: 5000}, "built", "500 cycles", "1000 cycles", "1500 cycles",
		"2000 cycles", "2500 cycles", "3000 cycles", "3500 cycles", "4000 cycles", "4500 cycles", "5000 cycles")
	f("few cycles", Churn{Metric: vectord.Dot, Threads: 1, Rounds: 1, Cycles: 3}, "built", "1", "1 cycles", "2 cycles", "3 cycles")
}

// TestChurnSwaps checks that rounds of replacing exchange one half for the other.
func TestChurnSwaps(t *testing.T) {
	c := Churn{Base: randomVectors(9, 100, 4), Queries: randomVectors(10, 5, 4), Metric: vectord.Euclid, K: 1, Codec: vectord.CodecInt8, Ef: 50, Threads: 1, Rounds: 1,
		Share: 1, Replace: true}
	run, err := c.begin()
	if err != nil {
		t.Fatal(err)
	}
	defer run.graph.Close()
	before := make(map[int32]bool)
	for _, row := range run.rows {
		before[row] = true
	}
	if err := run.measure(t.Context(), func(string) {}); err != nil {
		t.Fatal(err)
	}
	for place, row := range run.rows {
		if before[row] {
			t.Errorf("row %d is still there", row)
		}
		if slot := run.homes[place]; run.rowOf[slot] != row || !run.graph.Live(slot) {
			t.Errorf("row %d has slot %d, which holds row %d, live %t", row, slot, run.rowOf[slot], run.graph.Live(slot))
		}
		before[row] = true
	}
	if len(before) != 100 || len(run.others) != 0 || run.graph.Len() != 50 {
		t.Errorf("%d rows seen, %d left, %d in the graph", len(before), len(run.others), run.graph.Len())
	}
}

func TestChurnRefuses(t *testing.T) {
	f := func(want string, change func(c *Churn)) {
		t.Helper()
		c := Churn{Base: randomVectors(1, 20, 4), Queries: randomVectors(2, 3, 4), Metric: vectord.Dot, K: 5, Codec: vectord.CodecInt8, Ef: 10, Threads: 1, Rounds: 1, Share: 0.5}
		change(&c)
		if _, err := c.Run(t.Context(), func(string) {}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
	f("metric", func(c *Churn) { c.Metric = 0 })
	f("the queries have 5 components, the base vectors 4", func(c *Churn) { c.Queries = randomVectors(2, 3, 5) })
	f("1 vectors have no halves", func(c *Churn) { c.Base, c.Replace = randomVectors(1, 1, 4), true })
	f("k: 11 invalid, must be from 1 to 10", func(c *Churn) { c.K, c.Replace = 11, true })
	f("ef: 4 invalid, must be from k = 5", func(c *Churn) { c.Ef = 4 })
	f("threads: 0", func(c *Churn) { c.Threads = 0 })
	f("rounds: -1", func(c *Churn) { c.Rounds = -1 })
	f("share: 0 invalid", func(c *Churn) { c.Share = 0 })
	f("cycles: -1", func(c *Churn) { c.Cycles = -1 })
	f("nothing to measure", func(c *Churn) { c.Rounds = 0 })
	f("codec: \"int7\" invalid", func(c *Churn) { c.Codec = "int7" })
	f("M is 1", func(c *Churn) { c.M = 1 })

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c := Churn{Base: randomVectors(1, 20, 4), Queries: randomVectors(2, 3, 4), Metric: vectord.Dot, K: 5, Codec: vectord.CodecInt8, Ef: 10, Threads: 1, Rounds: 1, Share: 0.5}
	if _, err := c.Run(ctx, func(string) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled run: %v", err)
	}
}

func ExampleChurnReport_WriteTable() {
	report := ChurnReport{N: 1000, Dim: 100, Metric: "Cosine", Codec: "int8", K: 10, Ef: 100, Share: 0.05, Rows: []ChurnRow{
		{Step: "built", Recall: 0.99, Memory: 2 << 20, Resident: 30 << 20, Slots: 1000, Goroutines: 3, InsertMicros: 150},
		{Step: "1", Recall: 0.9895, Memory: 2<<20 + 1<<17, Resident: 30 << 20, Slots: 1050, Goroutines: 3, DeleteMicros: 25.3, InsertMicros: 160}}}
	report.WriteTable(os.Stdout)
	// Output:
	// 1000 × 100 Cosine · codec int8 · k 10 · ef 100 · 5 % in each round
	//
	//   round  recall   change  MiB  × built  RSS MiB  slots  goroutines  µs/delete  µs/insert
	//   -----  ------   ------  ---  -------  -------  -----  ----------  ---------  ---------
	//   built  0.9900  +0.0000  2.0    1.000       30   1000           3          -      150.0
	//       1  0.9895  -0.0005  2.1    1.062       30   1050           3       25.3      160.0
}
