package arch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/vectord/vectord"

// A rule says what a package and those below it may import of this module; "." is the root. Everything may import the
// packages below itself.
type rule struct {
	pkg     string
	imports []string
	tests   []string // what its tests may import besides
}

// rules hold one line for every package of the module. A package without a line fails the test, so that whoever adds one
// decides where it stands.
var rules = []rule{
	{pkg: "."},
	{pkg: "index", imports: []string{"."}},
	{pkg: "replication/transport", imports: []string{"."}},
	{pkg: "storage", imports: []string{".", "internal/fsync"}},
	{pkg: "replication/logstore", imports: []string{".", "internal/fsync"}, tests: []string{"storage"}},
	{pkg: "replication/group", imports: []string{".", "internal/fsync", "replication"}, tests: []string{"replication/logstore"}},
	{pkg: "replication/gossip", imports: []string{".", "replication/transport"}},
	{pkg: "replication", imports: []string{"."}},
	{pkg: "scheduler/pool", imports: []string{"."}},
	{pkg: "scheduler", imports: []string{".", "index", "storage"}, tests: []string{"internal/node"}},
	{pkg: "engine", imports: []string{".", "index", "internal/text", "storage"}, tests: []string{"replication", "internal/model"}},
	{pkg: "server/grpc", imports: []string{".", "internal/access"}, tests: []string{"internal/model", "internal/node", "internal/token", "server"}},
	{pkg: "server/tcp", imports: []string{".", "internal/access", "internal/wire"}, tests: []string{"client", "internal/model", "internal/token"}},
	{pkg: "server/mcp", imports: []string{".", "internal/access"}, tests: []string{"internal/model", "internal/token", "server"}},
	{pkg: "server", imports: []string{".", "internal/access", "internal/wire"}, tests: []string{"internal/model", "internal/openapi", "internal/token"}},
	{pkg: "client", imports: []string{".", "internal/wire"}, tests: []string{"server", "internal/model", "internal/openapi"}},
	{pkg: "bench", imports: []string{".", "index", "client"}, tests: []string{"server", "internal/model"}},
	{pkg: "internal/access", imports: []string{".", "internal/token"}, tests: []string{"internal/model"}},
	{pkg: "internal/arch"},
	{pkg: "internal/config", imports: []string{"."}},
	{pkg: "internal/embed", imports: []string{"."}},
	{pkg: "internal/fsync"},
	{pkg: "internal/model", imports: []string{".", "internal/text"}},
	{pkg: "internal/node", imports: []string{".", "engine", "index", "internal/embed", "replication", "replication/gossip", "replication/group", "replication/logstore", "replication/transport", "scheduler", "server", "storage"},
		tests: []string{"internal/model", "internal/openapi"}},
	{pkg: "internal/openapi"},
	{pkg: "internal/token", imports: []string{"."}},
	{pkg: "internal/wire", imports: []string{"."}},
	{pkg: "internal/testcluster", imports: []string{".", "client", "internal/node"}},
	{pkg: "internal/text", imports: []string{"."}},
	{pkg: "cmd/vectord", imports: []string{".", "bench", "client", "internal/access", "internal/config", "internal/embed", "internal/node", "internal/token",
		"replication/logstore", "replication/transport", "scheduler", "server"}, tests: []string{"internal/model"}},
	{pkg: "test/mcp", imports: []string{".", "internal/node", "server"}},
	{pkg: "test/crash", tests: []string{".", "client"}},
	{pkg: "test", imports: []string{"internal/openapi"}},
}

// owners name the only packages that may import a module of someone else's. Modules that are not listed are free to all
// but the root, which imports the standard library only.
var owners = map[string][]string{
	"github.com/alecthomas/kong":       {"cmd/vectord"},
	"github.com/blevesearch":           {"internal/text"},
	"github.com/boltdb/bolt":           {"replication"},
	"github.com/clipperhouse/uax29":    {"internal/text"},
	"github.com/cockroachdb/pebble":    {"storage", "replication/group", "replication/logstore", "internal/fsync"},
	"github.com/fasthttp":              {"server"},
	"github.com/goccy/go-yaml":         {"cmd/vectord", "internal/config"},
	"github.com/golang-jwt/jwt":        {"internal/token"},
	"github.com/google/jsonschema-go":  {"server/mcp"},
	"github.com/hashicorp/go-hclog":    {"replication"},
	"github.com/hashicorp/memberlist":  {"replication/gossip"},
	"github.com/hashicorp/raft":        {"replication"},
	"github.com/hashicorp/raft-boltdb": {"replication"},
	"github.com/minio/minio-go":        {"cmd/vectord"},
	"github.com/modelcontextprotocol":  {"server/mcp", "test/mcp"},
	"github.com/santhosh-tekuri":       {"internal/openapi"},
	"github.com/tinylib/msgp":          {"internal/wire"},
	"github.com/valyala/fasthttp":      {"server"},
	"go.etcd.io/bbolt":                 {"replication"},
	"go.etcd.io/raft":                  {"replication"},
	"github.com/qdrant/go-client":      {"server/grpc"},
	"google.golang.org/grpc":           {"server/grpc"},
	"google.golang.org/protobuf":       {"server/grpc"},
	"go.uber.org/goleak":               nil, // tests only
	"pgregory.net/rapid":               nil, // tests only
	"github.com/rogpeppe/go-internal":  nil, // tests only
}

// goPackage is what this test reads of the output of `go list -json`.
type goPackage struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

// TestImports checks every package of the module on every platform that the module is built for: files for one platform
// are as bound by the rules as the others.
func TestImports(t *testing.T) {
	for _, platform := range []string{"linux/amd64", "linux/arm64", "darwin/arm64"} {
		packages, err := list(platform)
		if err != nil {
			t.Fatal(err)
		}
		if len(packages) < 2 {
			t.Fatalf("%s: go list found %d packages", platform, len(packages))
		}
		for _, p := range packages {
			for _, v := range violations(p) {
				t.Errorf("%s: %s", platform, v)
			}
		}
	}
}

// TestViolations checks that each kind of rule can be broken, and that a break is reported.
func TestViolations(t *testing.T) {
	f := func(p goPackage, want string) {
		t.Helper()
		p.ImportPath = strings.TrimSuffix(module+"/"+p.ImportPath, "/")
		got := strings.Join(violations(p), "\n")
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("violations of %s: got %q, want %q in it", p.ImportPath, got, want)
		}
	}
	imports := func(paths ...string) []string { return paths }
	f(goPackage{Imports: imports("fmt", "net/http")}, "")
	f(goPackage{Imports: imports("golang.org/x/sys/unix")}, "the root imports the standard library only")
	f(goPackage{Imports: imports(module + "/index")}, "may not import index")
	f(goPackage{ImportPath: "index/hnsw", Imports: imports(module, module+"/index/quant")}, "")
	f(goPackage{ImportPath: "index", Imports: imports(module + "/storage")}, "may not import storage")
	f(goPackage{ImportPath: "storage", Imports: imports(module + "/index/quant")}, "may not import index/quant")
	f(goPackage{ImportPath: "server", Imports: imports(module + "/engine")}, "may not import engine")
	f(goPackage{ImportPath: "server", TestImports: imports(module + "/internal/model")}, "")
	f(goPackage{ImportPath: "server", Imports: imports(module + "/internal/model")}, "may not import internal/model")
	f(goPackage{ImportPath: "replication", XTestImports: imports(module + "/server")}, "may not import server")
	f(goPackage{ImportPath: "storage", Imports: imports("github.com/cockroachdb/pebble/v2/vfs")}, "")
	f(goPackage{ImportPath: "engine", Imports: imports("github.com/cockroachdb/pebble/v2")}, "only storage, replication/group, replication/logstore, internal/fsync may")
	f(goPackage{ImportPath: "engine", TestImports: imports("github.com/cockroachdb/pebble/v2/vfs")}, "only storage, replication/group, replication/logstore, internal/fsync may")
	f(goPackage{ImportPath: "client", Imports: imports("github.com/valyala/fasthttp")}, "only server may")
	f(goPackage{ImportPath: "engine", TestImports: imports("pgregory.net/rapid")}, "")
	f(goPackage{ImportPath: "engine", Imports: imports("pgregory.net/rapid")}, "only tests may")
	f(goPackage{ImportPath: "stray", Imports: imports("fmt")}, "has no rule")
	f(goPackage{ImportPath: "indexes"}, "has no rule")
}

// list returns the packages of the module as they are built for a platform. A package that does not compile is listed by
// what it names: -e leaves that mistake to the compiler.
func list(platform string) ([]goPackage, error) {
	goos, goarch, _ := strings.Cut(platform, "/")
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports,TestImports,XTestImports", module+"/...")
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list for %s: %w", platform, err)
	}
	var packages []goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages, nil
		} else if err != nil {
			return nil, fmt.Errorf("go list for %s: %w", platform, err)
		}
		packages = append(packages, p)
	}
}

// violations returns one line for every import of p that the rules forbid.
func violations(p goPackage) []string {
	name := relative(p.ImportPath)
	i := slices.IndexFunc(rules, func(r rule) bool { return within(name, r.pkg) })
	if i < 0 {
		return []string{fmt.Sprintf("package %s has no rule in internal/arch: add the line that says what it may import", name)}
	}
	var found []string
	for _, path := range p.Imports {
		if err := rules[i].check(name, path, false); err != nil {
			found = append(found, err.Error())
		}
	}
	for _, path := range slices.Concat(p.TestImports, p.XTestImports) {
		if err := rules[i].check(name, path, true); err != nil {
			found = append(found, "in a test: "+err.Error())
		}
	}
	return found
}

// check returns why package name, under rule r, may not import path, or nil.
func (r rule) check(name, path string, inTest bool) error {
	if path == module || strings.HasPrefix(path, module+"/") {
		target := relative(path)
		allowed := func(pkg string) bool { return within(target, pkg) }
		if within(target, r.pkg) || slices.ContainsFunc(r.imports, allowed) || inTest && slices.ContainsFunc(r.tests, allowed) {
			return nil
		}
		return fmt.Errorf("%s may not import %s: the rules let it import %q", name, target, r.imports)
	}
	if first, _, _ := strings.Cut(path, "/"); !strings.Contains(first, ".") {
		return nil // the standard library
	}
	if name == "." {
		return fmt.Errorf("the root imports the standard library only, not %s", path)
	}
	for owned, by := range owners {
		if !within(path, owned) || inTest && by == nil {
			continue
		}
		if by == nil {
			return fmt.Errorf("%s may not import %s: only tests may", name, path)
		}
		if !slices.ContainsFunc(by, func(pkg string) bool { return within(name, pkg) }) {
			return fmt.Errorf("%s may not import %s: only %s may", name, path, strings.Join(by, ", "))
		}
	}
	return nil
}

// relative returns an import path of this module as a path from its root, which is ".".
func relative(path string) string {
	if path == module {
		return "."
	}
	return strings.TrimPrefix(path, module+"/")
}

// within reports whether path is dir or lies below it. Nothing but the root itself lies within ".".
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir+"/")
}
