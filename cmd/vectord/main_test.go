package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// TestMain lets the test binary stand in for the program, so that tests can start real processes of it.
func TestMain(m *testing.M) {
	if os.Getenv(runAsProgram) != "" {
		os.Unsetenv(runAsProgram)
		main()
	}
	os.Exit(m.Run())
}

// runAsProgram is the variable that makes the test binary the program.
const runAsProgram = "TEST_RUN_AS_VECTORD"

// invoke runs a command line in this process.
func invoke(t *testing.T, environ []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(&session{t.Context(), strings.NewReader(""), &out, &errs}, args, environ)
	return code, out.String(), errs.String()
}

func TestUsage(t *testing.T) {
	f := func(wantCode int, want string, args ...string) {
		t.Helper()
		code, stdout, stderr := invoke(t, nil, args...)
		if code != wantCode || !strings.Contains(stdout+stderr, want) {
			t.Errorf("vectord %q: exit code %d, want %d; output lacks %q:\n%s%s", args, code, wantCode, want, stdout, stderr)
		}
	}
	f(exitOK, "vectord demo", "--help")
	f(exitOK, "--memory-limit", "serve", "--help")
	f(exitOK, "vectord serve --config vectord.yaml", "serve", "--help")
	f(exitOK, "--resume", "import", "--help")
	f(exitOK, "--cluster-join", "serve", "--help")
	f(exitOK, "vectord cluster doctor http://10.0.0.1:6333", "cluster", "doctor", "--help")
	f(exitOK, "--cluster-ca ca.pem", "cert", "ca", "--help")
	f(exitUsage, "expected one of", "cluster")
	f(exitUsage, "<name>", "cert", "node")
	f(exitError, "no such file", "cert", "node", "n", "--ca", "absent.pem")
	f(exitOK, "--ef=10,20,40,80,160,320", "bench", "ann", "--help")
	f(exitOK, "--keep=100,50,20,10,5,2,1,0.5,0.1", "bench", "filter", "--help")
	f(exitOK, "--cycles 1000000", "bench", "churn", "--help")
	f(exitOK, "--write-rate 2000", "bench", "mixed", "--help")
	f(exitOK, "vectord 0.1.0", "version")
	f(exitUsage, "expected one of")
	f(exitUsage, "unexpected argument srve, did you mean \"serve\"?", "srve")
	f(exitUsage, "unknown flag --data-dri, did you mean \"--data-dir\"?", "serve", "--data-dri=x")
	f(exitUsage, "missing flags: --collection", "import", "a.npy")
	f(exitUsage, "--log-format must be one of", "serve", "--log-format=xml")
	f(exitUsage, `"2 parsecs" is not a size`, "serve", "--memory-limit=2 parsecs")
	f(exitError, "no such file", "bench", "ann", "--base", "absent.npy", "--query", "absent.npy")
	f(exitError, `metric "l2"`, "bench", "ann", "--base", "a.npy", "--query", "b.npy", "--metric", "l2")
	f(exitError, "ends in neither .svg nor .png", "bench", "ann", "--base", "a.npy", "--query", "b.npy", "--plot", "a.pdf")
	f(exitError, `metric "l2"`, "bench", "truth", "--base", "a.npy", "--query", "b.npy", "--metric", "l2", "--out", "t.ivecs")
	f(exitUsage, "missing flags: --out", "bench", "truth", "--base", "a.npy", "--query", "b.npy")
	f(exitError, "no such file", "bench", "compare", "absent.jsonl")
	f(exitOK, "--drift-base=FILE", "bench", "recall", "--help")
	f(exitError, `metric "l2"`, "bench", "recall", "--base", "a.npy", "--query", "b.npy", "--metric", "l2")
	f(exitError, "no such file", "bench", "recall", "--base", "absent.npy", "--query", "absent.npy")
	f(exitError, `metric "l2"`, "bench", "filter", "--base", "a.npy", "--query", "b.npy", "--metric", "l2")
	f(exitError, "no such file", "bench", "churn", "--base", "absent.npy", "--query", "absent.npy")
	f(exitError, `metric "l2"`, "bench", "churn", "--base", "a.npy", "--query", "b.npy", "--metric", "l2")
	f(exitError, "no such file", "bench", "mixed", "--base", "absent.npy", "--query", "absent.npy")
	f(exitError, `metric "l2"`, "bench", "mixed", "--base", "a.npy", "--query", "b.npy", "--metric", "l2")
}

// TestPrecedence checks where each setting comes from: flag, then environment, then file, then default.
func TestPrecedence(t *testing.T) {
	file := filepath.Join(t.TempDir(), "vectord.yaml")
	if err := os.WriteFile(file, []byte("data-dir: from-file\nhttp: from-file\nlog-format: json\ninsecure: true\nmemory-limit: 1GiB\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	parse := func(environ []string, args ...string) (*cli, error) {
		c := &cli{environ: environ}
		parser, err := kong.New(c, kong.Exit(func(int) { t.Errorf("%q exits", args) }))
		if err != nil {
			t.Fatal(err)
		}
		_, err = parser.Parse(args)
		return c, err
	}
	f := func(environ, args []string, want serveCmd) {
		t.Helper()
		c, err := parse(environ, append([]string{"serve"}, args...)...)
		if err != nil {
			t.Errorf("environment %q, arguments %q: %v", environ, args, err)
		} else if c.Serve != want {
			t.Errorf("environment %q, arguments %q:\n%+v, want\n%+v", environ, args, c.Serve, want)
		}
	}
	clusterDefaults := clusterFlags{Name: "vectord", LogStore: "pebble"}
	defaults := serveCmd{DataDir: "./data", HTTP: "127.0.0.1:6333", GRPC: "127.0.0.1:6334", TCP: "127.0.0.1:6335", Cluster: clusterDefaults, LogFormat: "text", LogLevel: "info"}
	with := func(change func(c *serveCmd)) serveCmd {
		c := defaults
		change(&c)
		return c
	}
	fromFile := serveCmd{DataDir: "from-file", HTTP: "from-file", GRPC: "127.0.0.1:6334", TCP: "127.0.0.1:6335", Cluster: clusterDefaults, LogFormat: "json", LogLevel: "info", Insecure: true, MemoryLimit: 1 << 30}

	f(nil, nil, defaults)
	f([]string{"VECTORD_HTTP=from-env", "HTTP=x"}, nil, with(func(c *serveCmd) { c.HTTP = "from-env" }))
	f([]string{"VECTORD_GRPC=from-env"}, nil, with(func(c *serveCmd) { c.GRPC = "from-env" }))
	f([]string{"VECTORD_GRPC=from-env"}, []string{"--grpc="}, with(func(c *serveCmd) { c.GRPC = "" }))
	f([]string{"VECTORD_HTTP=from-env"}, []string{"--http", "from-flag"}, with(func(c *serveCmd) { c.HTTP = "from-flag" }))
	f(nil, []string{"--config", file}, fromFile)
	f([]string{"VECTORD_CONFIG=" + file}, nil, fromFile)
	f([]string{"VECTORD_CONFIG=absent"}, []string{"--config=" + file}, fromFile)
	f([]string{"VECTORD_HTTP=from-env", "VECTORD_MEMORY_LIMIT=2GiB", "VECTORD_INSECURE=false"}, []string{"--data-dir=from-flag", "--config", file},
		serveCmd{DataDir: "from-flag", HTTP: "from-env", GRPC: "127.0.0.1:6334", TCP: "127.0.0.1:6335", Cluster: clusterDefaults, LogFormat: "json", LogLevel: "info", MemoryLimit: 2 << 30})
	f([]string{"VECTORD_INSECURE=1", "VECTORD_API_KEY=k", "VECTORD_READ_ONLY_API_KEY_FILE=f", "VECTORD_TLS_CERT=c"}, nil,
		with(func(c *serveCmd) { c.Insecure, c.APIKey, c.ReadOnlyAPIKeyFile, c.TLSCert = true, "k", "f", "c" }))
	f([]string{"VECTORD_SNAPSHOT_DIR=d", "VECTORD_SNAPSHOT_URLS=https://a/,http://b/c/"}, nil,
		with(func(c *serveCmd) { c.SnapshotDir, c.SnapshotURLs = "d", "https://a/,http://b/c/" }))

	if c, err := parse([]string{"VECTORD_API_KEY=k", "VECTORD_URL=http://h"}, "import", "a.npy", "--collection", "c"); err != nil || c.Import.APIKey != "k" || c.Import.URL != "http://h" {
		t.Errorf("import takes %+v from the environment, %v", c.Import, err)
	}

	refused := func(want string, environ []string, args ...string) {
		t.Helper()
		if _, err := parse(environ, args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("environment %q, arguments %q: error %v, want %q in it", environ, args, err, want)
		}
	}
	refused("VECTORD_DATADIR is unknown, did you mean VECTORD_DATA_DIR?", []string{"VECTORD_DATADIR=x"}, "serve")
	refused("VECTORD_COLLECTION is unknown", []string{"VECTORD_COLLECTION=x"}, "import", "a.npy")
	refused("absent.yaml", nil, "serve", "--config", "absent.yaml")
	refused("--log-level must be one of", []string{"VECTORD_LOG_LEVEL=loud"}, "serve")
	refused("--insecure", []string{"VECTORD_INSECURE=perhaps"}, "serve")
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("\ndata_dir: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(bad+`:2: key "data_dir" is unknown, did you mean data-dir?`, nil, "serve", "--config", bad)
}

func TestByteSize(t *testing.T) {
	f := func(s string, want int64) {
		t.Helper()
		var b byteSize
		if err := b.UnmarshalText([]byte(s)); err != nil || int64(b) != want {
			t.Errorf("%q is %d, %v, want %d", s, b, err, want)
		}
	}
	f("0", 0)
	f("1024", 1024)
	f("7B", 7)
	f("1KiB", 1<<10)
	f("1.5 MiB", 3<<19)
	f("2GiB", 2<<30)
	f("1TiB", 1<<40)
	f("2GB", 2e9)
	for _, s := range []string{"", "GiB", "-1", "NaN", "Inf", "1e300", "9223372036854775808", "1 PiB", "1gib"} {
		var b byteSize
		if err := b.UnmarshalText([]byte(s)); err == nil {
			t.Errorf("%q was read as %d", s, b)
		}
	}
}

func TestSecret(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	f := func(value, file, want, wantErr string) {
		t.Helper()
		got, err := secret("api-key", value, file)
		if got != want || (err == nil) != (wantErr == "") || err != nil && !strings.Contains(err.Error(), wantErr) {
			t.Errorf("secret(%q, %q) = %q, %v", value, file, got, err)
		}
	}
	good := write("good", " key \nsecond line\n")
	f("", "", "", "")
	f("key", "", "key", "")
	f("", good, "key", "")
	f("key", good, "", "both given")
	f("", filepath.Join(dir, "absent"), "", "no such file")
	f("", write("empty", "\nkey"), "", "is empty")
	f("", write("long", strings.Repeat("x", secretBytesMax+1)), "", "longer than")
	f("", dir, "", "is empty")
}

func TestProgressBar(t *testing.T) {
	f := func(share float64, full int, percent string) {
		t.Helper()
		bar := progressBar(share)
		if strings.Count(bar, "=") != full || !strings.HasSuffix(bar, percent) {
			t.Errorf("progressBar(%v) = %q", share, bar)
		}
	}
	f(-1, 0, "  0%")
	f(0.5, progressCells/2, " 50%")
	f(2, progressCells, "100%")
	var b bytes.Buffer
	p := newProgress(&b)
	p.show("x")
	p.clear()
	if b.Len() != 0 {
		t.Errorf("%q was written where no terminal is", b.String())
	}
}

// TestDemo drives the demo against a stand-in that knows one word.
func TestDemo(t *testing.T) {
	upserts := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := new(bytes.Buffer)
		body.ReadFrom(r.Body)
		switch {
		case r.Method == "GET":
			w.WriteHeader(404)
		case r.Method == "PUT" && strings.HasSuffix(r.URL.Path, "/points"):
			upserts++
			fmt.Fprint(w, `{"result":{"operation_id":1}}`)
		case strings.HasSuffix(r.URL.Path, "/scroll") && strings.Contains(body.String(), `"king"`):
			fmt.Fprint(w, `{"result":{"points":[{"id":654}]}}`)
		case strings.HasSuffix(r.URL.Path, "/scroll"):
			fmt.Fprint(w, `{"result":{"points":[]}}`)
		case strings.HasSuffix(r.URL.Path, "/query") && strings.Contains(body.String(), `"query":654`):
			fmt.Fprint(w, `{"result":{"points":[{"id":1948,"score":0.75,"payload":{"word":"queen"}}]}}`)
		default:
			fmt.Fprint(w, `{"result":true}`)
		}
	}))
	defer server.Close()
	code, stdout, stderr := invoke(t, nil, "demo", "--url", server.URL)
	if code != exitOK || upserts != 10 || !strings.Contains(stdout, "0.7500  queen") || !strings.Contains(stdout, `-d '{"query": 654, "limit": 8`) {
		t.Errorf("exit code %d after %d upserts:\n%s%s", code, upserts, stdout, stderr)
	}
	if code, _, stderr := invoke(t, nil, "demo", "--url", server.URL, "xyzzy"); code != exitError || !strings.Contains(stderr, `does not have the word "xyzzy"`) {
		t.Errorf("exit code %d, %s", code, stderr)
	}
}

func TestInterruptedCommand(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out bytes.Buffer
	if code := run(&session{ctx, strings.NewReader(""), &out, &out}, []string{"demo"}, nil); code != exitInterrupted {
		t.Errorf("exit code %d: %s", code, out.String())
	}
}
