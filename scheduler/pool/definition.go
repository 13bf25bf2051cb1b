package pool

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/vectord/vectord"
)

// Limits of definitions.
const (
	MaxPools         = 64
	MaxProcesses     = 1_000     // of one pool
	MaxArguments     = 256       // of a command; also the variables of its environment and the entries of a tool map
	MaxArgumentBytes = 32 << 10  // of one of these
	MaxSeconds       = 24 * 3600 // of every duration
	definitionsBytes = 1 << 20   // of the file of definitions
)

// Kind says what the processes of a pool speak on stdin and stdout.
type Kind string

// The kinds of pools.
const (
	Worker Kind = "worker" // vectord's own messages, see docs/POOLS.md
	MCP    Kind = "mcp"    // the Model Context Protocol: any server of it that talks over stdio
)

// Definition says which processes a pool has. The zero value of each field stands for the default that is named.
type Definition struct {
	Name    string            `json:"name"`
	Command string            `json:"command"` // absolute path
	Args    []string          `json:"args,omitempty"`
	Env     map[string]string `json:"env,omitempty"` // besides PATH, HOME, LANG, TZ and TMPDIR, which are the server's
	Cwd     string            `json:"cwd,omitempty"` // absolute; the server's
	Kind    Kind              `json:"kind,omitempty"`

	MinSize             int               `json:"min_size,omitempty"`              // 5, or MaxSize if that is less
	MaxSize             int               `json:"max_size,omitempty"`              // 100, or MinSize if that is more
	WarmupIntervalMS    int               `json:"warmup_interval_ms,omitempty"`    // between starts while no task waits; 1000
	IdleTimeoutSeconds  int               `json:"idle_timeout_seconds,omitempty"`  // after which a process beyond MinSize ends; 30
	MaxTasksPerProcess  int               `json:"max_tasks_per_process,omitempty"` // after which it is replaced; no limit
	CapacityPerProcess  int               `json:"capacity_per_process,omitempty"`  // tasks at a time; 1
	MemoryLimitMB       int               `json:"memory_limit_mb,omitempty"`       // of address space; no limit
	StartTimeoutSeconds int               `json:"start_timeout_seconds,omitempty"` // from the start to the answered handshake; 10
	StopGraceSeconds    int               `json:"stop_grace_seconds,omitempty"`    // after each of: a cancellation, the end of stdin, SIGTERM; 5
	Restart             Restart           `json:"restart,omitzero"`
	Queues              []string          `json:"queues"`
	Vectors             [][]float32       `json:"vectors,omitempty"`
	Texts               []string          `json:"texts,omitempty"`
	Capabilities        []string          `json:"capabilities,omitempty"`
	ToolMap             map[string]string `json:"tool_map,omitempty"` // kind mcp: task type → tool, "*" for other types; types are tools
}

// Restart is how often processes may end on their own before the pool reports that it failed. Those that end while they have a
// task do not count: its max_attempts bounds them.
type Restart struct {
	Max           int             `json:"max,omitempty"`            // ends within the window; 5
	WindowSeconds int             `json:"window_seconds,omitempty"` // also how long a failed pool waits before it tries again; 60
	Backoff       vectord.Backoff `json:"backoff,omitzero"`         // 100 ms, twice as long each time up to 10 s, changed by up to a fifth
}

var poolName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// orDefault sets what is zero.
func orDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// withDefaults returns d with every field set, sharing nothing that d's owner may change.
func (d Definition) withDefaults() Definition {
	d.Args, d.Queues, d.Texts, d.Capabilities = slices.Clone(d.Args), slices.Clone(d.Queues), slices.Clone(d.Texts), slices.Clone(d.Capabilities)
	d.Vectors = slices.Clone(d.Vectors)
	for i, v := range d.Vectors {
		d.Vectors[i] = slices.Clone(v)
	}
	d.Env, d.ToolMap = maps.Clone(d.Env), maps.Clone(d.ToolMap)
	orDefault(&d.Kind, Worker)
	if d.MinSize == 0 {
		d.MinSize = 5
		if d.MaxSize > 0 {
			d.MinSize = min(d.MinSize, d.MaxSize)
		}
	}
	orDefault(&d.MaxSize, max(100, d.MinSize))
	orDefault(&d.WarmupIntervalMS, 1_000)
	orDefault(&d.IdleTimeoutSeconds, 30)
	orDefault(&d.CapacityPerProcess, 1)
	orDefault(&d.StartTimeoutSeconds, 10)
	orDefault(&d.StopGraceSeconds, 5)
	orDefault(&d.Restart.Max, 5)
	orDefault(&d.Restart.WindowSeconds, 60)
	orDefault(&d.Restart.Backoff, vectord.Backoff{InitialMS: 100, Factor: 2, MaxMS: 10_000, Jitter: 0.2})
	return d
}

// check refuses a definition, with its defaults, that could not be run.
func (d *Definition) check() error {
	refuse := func(format string, args ...any) error {
		return vectord.Errorf(vectord.KindInvalid, "pool %q: %s", d.Name, fmt.Sprintf(format, args...))
	}
	if !poolName.MatchString(d.Name) {
		return vectord.Errorf(vectord.KindInvalid, "%.80q is not the name of a pool: expected a letter or digit and up to 63 of A-Z a-z 0-9 . _ -", d.Name)
	}
	if d.Kind != Worker && d.Kind != MCP {
		return refuse("kind %.80q is unknown, expected worker or mcp", d.Kind)
	}
	if err := d.checkProgram(); err != nil {
		return refuse("%v", err)
	}
	type bound struct {
		field          string
		value, atLeast int
		atMost         int
	}
	for _, b := range []bound{
		{"min_size", d.MinSize, 1, MaxProcesses},
		{"max_size", d.MaxSize, d.MinSize, MaxProcesses},
		{"warmup_interval_ms", d.WarmupIntervalMS, 1, MaxSeconds * 1000},
		{"idle_timeout_seconds", d.IdleTimeoutSeconds, 1, MaxSeconds},
		{"max_tasks_per_process", d.MaxTasksPerProcess, 0, math.MaxInt32},
		{"capacity_per_process", d.CapacityPerProcess, 1, vectord.MaxTaskBatch},
		{"memory_limit_mb", d.MemoryLimitMB, 0, 1 << 24},
		{"start_timeout_seconds", d.StartTimeoutSeconds, 1, MaxSeconds},
		{"stop_grace_seconds", d.StopGraceSeconds, 1, MaxSeconds},
		{"restart.max", d.Restart.Max, 1, math.MaxInt32},
		{"restart.window_seconds", d.Restart.WindowSeconds, 1, MaxSeconds},
		{"the number of queues", len(d.Queues), 1, vectord.MaxQueues},
		{"the number of vectors", len(d.Vectors), 0, vectord.MaxAgentVectors},
		{"the number of texts", len(d.Texts), 0, vectord.MaxAgentVectors},
		{"the number of capabilities", len(d.Capabilities), 0, vectord.MaxTaskTags},
	} {
		if b.value < b.atLeast || b.value > b.atMost {
			return refuse("%s is %d, expected %d to %d", b.field, b.value, b.atLeast, b.atMost)
		}
	}
	if b := d.Restart.Backoff; b.InitialMS < 1 || b.MaxMS < b.InitialMS || b.MaxMS > MaxSeconds*1000 || !(b.Factor >= 1 && b.Factor <= 100) || !(b.Jitter >= 0 && b.Jitter <= 1) {
		return refuse("restart.backoff needs initial_ms from 1 to max_ms, a factor from 1 to 100 and a jitter from 0 to 1")
	}
	if d.MemoryLimitMB > 0 && runtime.GOOS != "linux" {
		return vectord.Errorf(vectord.KindUnsupported, "pool %q: memory_limit_mb is offered on Linux only", d.Name)
	}
	for _, name := range slices.Concat(d.Queues, d.Capabilities) {
		if name == "" || len(name) > vectord.MaxNameBytes {
			return refuse("%.80q is not a name: expected 1 to %d bytes", name, vectord.MaxNameBytes)
		}
	}
	for i, v := range d.Vectors {
		if len(v) == 0 || slices.ContainsFunc(v, func(x float32) bool { return math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) }) {
			return refuse("vectors[%d] is empty or not of finite numbers", i)
		}
	}
	agent := (&greeting{}).config(d)
	if err := agent.Check(); err != nil {
		return fmt.Errorf("pool %q: %w", d.Name, err)
	}
	if len(d.ToolMap) > 0 && d.Kind != MCP {
		return refuse("tool_map is for kind mcp, this is kind %s", d.Kind)
	}
	for kind, tool := range d.ToolMap {
		if len(d.ToolMap) > MaxArguments || tool == "" || len(kind)+len(tool) > MaxArgumentBytes {
			return refuse("tool_map needs up to %d names of tools, not %.80q for type %.80q", MaxArguments, tool, kind)
		}
	}
	return nil
}

// checkProgram refuses what the system would refuse to start.
func (d *Definition) checkProgram() error {
	if !filepath.IsAbs(d.Command) || filepath.Clean(d.Command) != d.Command {
		return fmt.Errorf("command %.200q is not an absolute path without . and ..", d.Command)
	}
	if info, err := os.Stat(d.Command); err != nil {
		return fmt.Errorf("command: %w", err)
	} else if !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
		return fmt.Errorf("command %s is not a program", d.Command)
	}
	if d.Cwd != "" {
		if info, err := os.Stat(d.Cwd); !filepath.IsAbs(d.Cwd) || err != nil || !info.IsDir() {
			return fmt.Errorf("cwd %.200q is not the absolute path of a directory", d.Cwd)
		}
	}
	if len(d.Args) > MaxArguments || len(d.Env) > MaxArguments {
		return fmt.Errorf("%d arguments and %d variables, expected up to %d of each", len(d.Args), len(d.Env), MaxArguments)
	}
	for _, arg := range d.Args {
		if len(arg) > MaxArgumentBytes || strings.ContainsRune(arg, 0) {
			return fmt.Errorf("argument %.80q is longer than %d bytes or has a zero byte", arg, MaxArgumentBytes)
		}
	}
	for name, value := range d.Env {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.ContainsRune(value, 0) || len(name)+len(value) > MaxArgumentBytes {
			return fmt.Errorf("variable %.80q is not a name and a value of up to %d bytes", name, MaxArgumentBytes)
		}
	}
	return nil
}

// sameProgram reports whether the same program would run in the same way.
func (d *Definition) sameProgram(o *Definition) bool {
	return d.Command == o.Command && d.Cwd == o.Cwd && slices.Equal(d.Args, o.Args) && maps.Equal(d.Env, o.Env)
}

// sameProcesses reports whether the processes of d serve o as well: they differ in how many there are and when.
func (d Definition) sameProcesses(o Definition) bool {
	for _, x := range []*Definition{&d, &o} {
		x.MinSize, x.MaxSize, x.WarmupIntervalMS, x.IdleTimeoutSeconds, x.Restart = 0, 0, 0, 0, Restart{}
	}
	return reflect.DeepEqual(d, o)
}

func (d *Definition) startTimeout() time.Duration {
	return time.Duration(d.StartTimeoutSeconds) * time.Second
}

func (d *Definition) stopGrace() time.Duration {
	return time.Duration(d.StopGraceSeconds) * time.Second
}

// ReadFile reads definitions from a JSON file: {"pools": [{"name": …, "command": …}, …]}. A field that is unknown is an error.
func ReadFile(path string) ([]Definition, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("pools: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, definitionsBytes+1))
	if err != nil {
		return nil, fmt.Errorf("pools: %w", err)
	}
	definitions, err := decodeDefinitions(text)
	if err != nil {
		return nil, fmt.Errorf("pools file %s: %w", path, err)
	}
	return definitions, nil
}

func decodeDefinitions(text []byte) ([]Definition, error) {
	if len(text) > definitionsBytes {
		return nil, vectord.Errorf(vectord.KindTooLarge, "longer than %d bytes", definitionsBytes)
	}
	var file struct {
		Pools []Definition `json:"pools"`
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&file); err != nil {
		return nil, vectord.Errorf(vectord.KindInvalid, "%v", err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, vectord.Errorf(vectord.KindInvalid, "something follows the definitions")
	}
	return file.Pools, nil
}
