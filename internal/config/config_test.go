package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var names = []string{"data-dir", "http", "api-key", "api-key-file", "insecure", "memory-limit"}

// load writes file, unless it is empty, and loads it together with the variables.
func load(t *testing.T, file string, environ ...string) (Settings, error) {
	t.Helper()
	path := ""
	if file != "" {
		path = filepath.Join(t.TempDir(), "v.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Load(path, environ, names)
	for name, setting := range s { // the directory differs from test to test
		setting.Source = strings.TrimPrefix(setting.Source, filepath.Dir(path)+"/")
		s[name] = setting
	}
	return s, err
}

func TestLoad(t *testing.T) {
	f := func(file string, environ []string, want Settings) {
		t.Helper()
		got, err := load(t, file, environ...)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("file %q, environment %q: %v, %v, want %v", file, environ, got, err, want)
		}
	}
	f("", nil, Settings{})
	f("", []string{"HOME=/root", "VECTORDX=1", "odd"}, Settings{})
	f("", []string{"VECTORD_HTTP=:80", "VECTORD_API_KEY=a=b"}, Settings{"http": {":80", "VECTORD_HTTP"}, "api-key": {"a=b", "VECTORD_API_KEY"}})
	f("", []string{"VECTORD_PORT=tcp://10.0.0.1:6333", "VECTORD_SERVICE_HOST=10.0.0.1", "VECTORD_SERVICE_PORT_HTTP=6333",
		"VECTORD_PORT_6333_TCP_ADDR=10.0.0.1", "VECTORD_PORT_6333_TCP=tcp://10.0.0.1:6333"}, Settings{})
	f("# nothing\n", nil, Settings{})
	f("---\n", nil, Settings{})
	f("http: 127.0.0.1:1\n", nil, Settings{"http": {"127.0.0.1:1", "v.yaml:1"}})
	f("# where\ndata-dir: /var/lib/v # here\ninsecure: true\nmemory-limit: 2GiB\n", nil, Settings{
		"data-dir": {"/var/lib/v", "v.yaml:2"}, "insecure": {"true", "v.yaml:3"}, "memory-limit": {"2GiB", "v.yaml:4"}})
	f("api-key: \"12 # 3\"\nmemory-limit: 1000\n", nil, Settings{"api-key": {"12 # 3", "v.yaml:1"}, "memory-limit": {"1000", "v.yaml:2"}})
	f("http:\ndata-dir: x", nil, Settings{"data-dir": {"x", "v.yaml:2"}})
	f("http: a\ndata-dir: b", []string{"VECTORD_HTTP=c"}, Settings{"http": {"c", "VECTORD_HTTP"}, "data-dir": {"b", "v.yaml:2"}})
	f("http: a", []string{"VECTORD_HTTP="}, Settings{"http": {"a", "v.yaml:1"}})
}

func TestLoadRefuses(t *testing.T) {
	f := func(want, file string, environ ...string) {
		t.Helper()
		_, err := load(t, file, environ...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("file %q, environment %q: error %v, want %q in it", file, environ, err, want)
		}
	}
	f("VECTORD_DATADIR is unknown, did you mean VECTORD_DATA_DIR?", "", "VECTORD_DATADIR=x")
	f("VECTORD_PORT is unknown", "", "VECTORD_PORT=6333")
	f("VECTORD_QUITE_ANOTHER_THING is unknown", "", "VECTORD_QUITE_ANOTHER_THING=")
	f(`v.yaml:2: key "data_dir" is unknown, did you mean data-dir?`, "http: x\ndata_dir: y\n")
	f(`v.yaml:1: key "zzzzzz" is unknown`, "zzzzzz: 1")
	f(`v.yaml:1: key "HTTP" is unknown`, "HTTP: x")
	f("http expects a single value", "http: [a, b]")
	f("http expects a single value", "http:\n  address: a\n")
	f("http expects a single value", "http: &x a\ndata-dir: *x\n")
	f("expected lines of the form", "- http\n")
	f("expected lines of the form", "http")
	f("holds 2 documents", "http: a\n---\nhttp: b\n")
	f(`http`, "http: a\nhttp: b\n")
	f("configuration", "http: \"a\n")
	f("longer than", "#"+strings.Repeat("x", fileBytesMax))

	if _, err := Load(filepath.Join(t.TempDir(), "absent.yaml"), nil, names); err == nil || !strings.Contains(err.Error(), "absent.yaml") {
		t.Errorf("an absent file: %v", err)
	}
}

func TestEditDistance(t *testing.T) {
	f := func(a, b string, want int) {
		t.Helper()
		if got, back := editDistance(a, b), editDistance(b, a); got != want || back != want {
			t.Errorf("editDistance(%q, %q) = %d, reversed %d, want %d", a, b, got, back, want)
		}
	}
	f("", "", 0)
	f("", "abc", 3)
	f("kitten", "sitting", 3)
	f("data_dir", "data-dir", 1)
	f("abc", "abc", 0)
}

func FuzzYAML(f *testing.F) {
	f.Add("http: a\ninsecure: true\n")
	f.Add("{http: a}")
	f.Add("- x")
	f.Add("? a\n: b")
	f.Fuzz(func(t *testing.T, text string) {
		s := Settings{}
		if err := s.addYAML("v.yaml", []byte(text), names); err == nil && len(s) > len(names) {
			t.Fatalf("%d settings", len(s))
		}
	})
}
