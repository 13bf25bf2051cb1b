package main

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/vectord/vectord/internal/config"
)

const (
	// settingTag marks the flags that may come from the environment and the configuration file.
	settingTag = "setting"

	// configVariable names the configuration file where the flag does not. The file cannot name another one.
	configVariable = config.EnvPrefix + "CONFIG"

	// secretBytesMax bounds a file that holds a secret.
	secretBytesMax = 4096
)

// BeforeResolve finds the settings before flags that were not given take their defaults. kong calls it.
func (c *cli) BeforeResolve(ctx *kong.Context) error {
	path := ""
	environ := slices.DeleteFunc(slices.Clone(c.environ), func(entry string) bool {
		value, ok := strings.CutPrefix(entry, configVariable+"=")
		if ok {
			path = value
		}
		return ok
	})
	for _, p := range ctx.Path {
		if p.Flag != nil && p.Flag.Name == "config" {
			path = ctx.FlagValue(p.Flag).(string)
		}
	}
	settings, err := config.Load(path, environ, settingNames(ctx.Model))
	if err != nil {
		return err
	}
	ctx.AddResolver(kong.ResolverFunc(func(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
		s, ok := settings[flag.Name]
		if !ok || !flag.Tag.Has(settingTag) {
			return nil, nil
		}
		return s.Value, nil
	}))
	return nil
}

// settingNames lists the flags that are tagged as settings, in all commands.
func settingNames(app *kong.Application) (names []string) {
	// The visitor returns no error, so neither does Visit.
	_ = kong.Visit(app, func(node kong.Visitable, next kong.Next) error {
		if flag, ok := node.(*kong.Flag); ok && flag.Tag.Has(settingTag) && !slices.Contains(names, flag.Name) {
			names = append(names, flag.Name)
		}
		return next(nil)
	})
	return names
}

// secret returns the value given directly or the first line of the file given instead. name is that of the flag.
func secret(name, value, file string) (string, error) {
	switch {
	case file == "":
		return value, nil
	case value != "":
		return "", fmt.Errorf("--%s and --%[1]s-file are both given", name)
	}
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("--%s-file: %w", name, err)
	}
	defer f.Close()
	text := make([]byte, secretBytesMax+1)
	n, _ := f.Read(text) // an unreadable file is an empty one, which is refused
	if n > secretBytesMax {
		return "", fmt.Errorf("--%s-file: %s is longer than %d bytes", name, file, secretBytesMax)
	}
	line, _, _ := strings.Cut(string(text[:n]), "\n")
	if line = strings.TrimSpace(line); line == "" {
		return "", fmt.Errorf("--%s-file: the first line of %s is empty", name, file)
	}
	return line, nil
}

// byteSize is a number of bytes that is written with a unit: 512MiB, 2GiB.
type byteSize int64

// byteUnits are ordered so that a longer suffix is tried before one that ends it.
var byteUnits = []struct {
	suffix string
	bytes  float64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1}, {"", 1}}

// UnmarshalText reads a decimal number and a unit.
func (b *byteSize) UnmarshalText(text []byte) error {
	for _, unit := range byteUnits {
		digits, ok := strings.CutSuffix(string(text), unit.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
		if err != nil || !(n >= 0) || n*unit.bytes >= math.MaxInt64 {
			break
		}
		*b = byteSize(n * unit.bytes)
		return nil
	}
	return fmt.Errorf("%q is not a size, expected a number and KiB, MiB, GiB or TiB, such as 2GiB", text)
}

func (b byteSize) String() string {
	switch {
	case b >= 1<<30:
		return fmt.Sprintf("%.2f GiB", float64(b)/(1<<30))
	case b >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(b)/(1<<20))
	}
	return fmt.Sprintf("%d B", int64(b))
}
