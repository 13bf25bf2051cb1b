package main

import (
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/vectord/vectord/bench"
	"github.com/vectord/vectord/server"
)

// TestBenchTasks sends tasks through every door for a moment.
func TestBenchTasks(t *testing.T) {
	for _, of := range []struct{ command, durability string }{{"tasks", "replicated"}, {"messages", "memory"}} {
		code, stdout, stderr := invoke(t, nil, "bench", of.command, "--data-dir", t.TempDir(), "--doors", "process,tcp,http", "--batch", "5", "--producers", "2",
			"--agents", "2", "--under-way", "50", "--duration", "300ms", "--rounds", "1", "--json")
		var report bench.TasksReport
		if err := json.Unmarshal([]byte(stdout), &report); err != nil || code != exitOK {
			t.Fatalf("exit code %d, %s%s (%v)", code, stdout, stderr, err)
		}
		if report.Durability != of.durability || len(report.Rows) != 6 {
			t.Fatalf("%+v", report)
		}
		for i, row := range report.Rows {
			if row.Door != []string{"process", "tcp", "http"}[i/2] || row.Load != []string{"peak", "half"}[i%2] || row.Rate <= 0 || row.Messages != 3*row.Rate ||
				row.Acknowledged.P50 <= 0 || row.Leased.P99 < row.Leased.P50 {
				t.Errorf("row %d: %+v", i, row)
			}
		}
	}
	refused := func(want string, args ...string) {
		t.Helper()
		if code, _, stderr := invoke(t, nil, append([]string{"bench", "tasks"}, args...)...); code != exitError || !strings.Contains(stderr, want) {
			t.Errorf("exit code %d, %s", code, stderr)
		}
	}
	refused("window", "--doors", "window")
	refused("batch", "--batch", "1001")
	refused("under way", "--under-way", "10")
	refused("payload", "--payload", "3")
}

// TestBenchRoute assigns a few tasks to a few agents.
func TestBenchRoute(t *testing.T) {
	code, stdout, stderr := invoke(t, nil, "bench", "route", "--data-dir", t.TempDir(), "--cases", "4:20", "--dim", "8", "--samples", "5", "--agents", "5",
		"--run-time", "5ms", "--duration", "300ms", "--json")
	var report bench.RouteReport
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || code != exitOK {
		t.Fatalf("exit code %d, %s%s (%v)", code, stdout, stderr, err)
	}
	if len(report.Rows) != 2 || len(report.Balances) != 2 {
		t.Fatalf("%+v", report)
	}
	for _, row := range report.Rows {
		if row.Agents != 4 || row.Queued != 20 || row.P50 <= 0 || row.Max < row.P50 {
			t.Errorf("%+v", row)
		}
	}
	for _, b := range report.Balances {
		if b.Tasks == 0 || b.Jain <= 0 || b.Jain > 1 || b.Highest < b.Lowest || b.Utilisation <= 0 {
			t.Errorf("%+v", b)
		}
	}
	if code, _, stderr := invoke(t, nil, "bench", "route", "--cases", "60"); code != exitError || !strings.Contains(stderr, "60:10000") {
		t.Errorf("exit code %d, %s", code, stderr)
	}
}

// TestBenchFootprint measures this process, with a server in it.
func TestBenchFootprint(t *testing.T) {
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("the system does not tell what is resident")
	}
	services, closer, err := openService(serviceOptions{dataDir: t.TempDir(), memoryLimit: 1 << 30, logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer closer.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- services.http.Serve(ln) }()
	defer func() {
		if err := services.http.(*server.Server).Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		<-served
	}()
	code, stdout, stderr := invoke(t, nil, "bench", "footprint", "--url", "http://"+ln.Addr().String(), "--process", strconv.Itoa(os.Getpid()), "--points", "50",
		"--dim", "4", "--agents", "2", "--queued", "10", "--rate", "100", "--duration", "300ms", "--json")
	var report bench.FootprintReport
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || code != exitOK {
		t.Fatalf("exit code %d, %s%s (%v)", code, stdout, stderr, err)
	}
	if report.Tasks == 0 || report.Searches == 0 || report.Highest <= 0 || report.PeakOfAll < report.End || len(report.Owners) == 0 {
		t.Errorf("%+v", report)
	}
}
