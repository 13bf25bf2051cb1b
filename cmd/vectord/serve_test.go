package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// process is a real server process.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	done chan struct{}

	mu  sync.Mutex // guards out
	out bytes.Buffer
}

// start runs the program and returns without waiting for it.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(os.Args[0], args...), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), runAsProgram+"=1")
	p.cmd.Stdout, p.cmd.Stderr = p, p
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.done
	})
	return p
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Write(b)
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// wait returns the exit code, and fails the test if the process does not end in time.
func (p *process) wait(limit time.Duration) int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(limit):
		p.t.Fatalf("still running after %v:\n%s", limit, p.output())
	}
	return p.cmd.ProcessState.ExitCode()
}

var listening = regexp.MustCompile(`url=(https?://\S+)`)

// url waits until the process says where it listens.
func (p *process) url() string {
	p.t.Helper()
	return p.says(listening)
}

// says waits until the process has written what re matches, and returns what its first group does.
func (p *process) says(re *regexp.Regexp) string {
	p.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if m := re.FindStringSubmatch(p.output()); m != nil {
			return m[1]
		}
		select {
		case <-p.done:
			p.t.Fatalf("the server ended:\n%s", p.output())
		default:
		}
	}
	p.t.Fatalf("the server does not listen:\n%s", p.output())
	return ""
}

func get(t *testing.T, client *http.Client, url string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

var listeningGRPC = regexp.MustCompile(`url=grpcs?://(\S+)`)

// list asks the gRPC door of a process for its collections, as any HTTP/2 client can. It returns the status of the call, 0 for
// success.
func (p *process) list(client *http.Client, scheme, key string) string {
	p.t.Helper()
	const noCompression, emptyMessage = "\x00", "\x00\x00\x00\x00"
	url := scheme + "://" + strings.Replace(p.says(listeningGRPC), "127.0.0.1", "localhost", 1) + "/qdrant.Collections/List"
	req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(noCompression+emptyMessage))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("TE", "trailers")
	if key != "" {
		req.Header.Set("Api-Key", key)
	}
	resp, err := client.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadAll(resp.Body); err != nil {
		p.t.Fatal(err)
	}
	return resp.Header.Get("Grpc-Status") + resp.Trailer.Get("Grpc-Status") // in the header if there is no message
}

// overHTTP2 returns a client that speaks HTTP/2 only, without TLS if config is nil.
func overHTTP2(config *tls.Config) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP2(config != nil)
	protocols.SetUnencryptedHTTP2(config == nil)
	return &http.Client{Transport: &http.Transport{Protocols: protocols, TLSClientConfig: config}}
}

// TestProcess starts a real server, uses it, ends it by a signal and starts it again on the same data.
func TestProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	p := start(t, "serve", "--data-dir", dir, "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--memory-limit", "256MiB")
	url := p.url()
	if status, body := get(t, http.DefaultClient, url+"/readyz"); status != 200 {
		t.Errorf("/readyz answers %d %s", status, body)
	}
	if code, stdout, stderr := invoke(t, nil, "demo", "--url", url); code != exitOK || !strings.Contains(stdout, "queen") {
		t.Errorf("demo: exit code %d\n%s%s", code, stdout, stderr)
	}

	h2 := overHTTP2(nil)
	defer h2.CloseIdleConnections()
	if got := p.list(h2, "http", ""); got != "0" {
		t.Errorf("over gRPC: status %s", got)
	}

	second := start(t, "serve", "--data-dir", dir, "--http", "127.0.0.1:0", "--grpc", "", "--memory-limit", "256MiB")
	if code := second.wait(20 * time.Second); code != exitError || !strings.Contains(second.output(), "in use by another process") {
		t.Errorf("a second process: exit code %d\n%s", code, second.output())
	}

	p.cmd.Process.Signal(syscall.SIGTERM)
	if code := p.wait(exitWithin + time.Second); code != exitOK || !strings.Contains(p.output(), "stopped") {
		t.Errorf("SIGTERM: exit code %d\n%s", code, p.output())
	}

	if code, stdout, stderr := invoke(t, nil, "check", "--data-dir", dir); code != exitOK || !strings.Contains(stdout, "5000 points") || !strings.Contains(stdout, "no damage found") {
		t.Errorf("check: exit code %d\n%s%s", code, stdout, stderr)
	}

	p = start(t, "serve", "--data-dir", dir, "--http", "127.0.0.1:0", "--grpc", "", "--memory-limit", "256MiB", "--log-format", "json")
	for !strings.Contains(p.output(), `"url":"http://`) {
		select {
		case <-p.done:
			t.Fatalf("the server ended:\n%s", p.output())
		case <-time.After(10 * time.Millisecond):
		}
	}
	p.cmd.Process.Signal(os.Interrupt)
	if code := p.wait(exitWithin + time.Second); code != exitOK {
		t.Errorf("SIGINT: exit code %d\n%s", code, p.output())
	}
}

// idle is a service that does nothing until it is shut down, and then as it is told.
type idle struct {
	stop     chan struct{}
	shutdown func(context.Context) error
	closed   bool
	serve    error // returned by Serve at once, if not nil
	listener net.Listener
}

func (i *idle) Serve(l net.Listener) error {
	i.listener = l
	if i.serve != nil {
		return i.serve
	}
	<-i.stop
	return nil
}
func (i *idle) ServeTLS(l net.Listener, _ *tls.Config) error { return i.Serve(l) }
func (i *idle) Shutdown(ctx context.Context) error {
	defer close(i.stop)
	if i.shutdown == nil {
		return nil
	}
	return i.shutdown(ctx)
}
func (i *idle) Close() error { i.closed = true; return nil }

// runIdle runs serve over an idle service and cancels it once it listens. It returns the exit code that the
// watchdog chose, or -1, and the error.
func runIdle(t *testing.T, i *idle) (exitCode int, err error) {
	t.Helper()
	i.stop = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := serveCmd{HTTP: "127.0.0.1:0", LogLevel: "info", MemoryLimit: 1 << 30}
	var exited atomic.Int32
	exited.Store(-1)
	err = c.run(&session{ctx, strings.NewReader(""), io.Discard, io.Discard}, func(o serviceOptions) (services, io.Closer, error) {
		if i.serve == nil {
			cancel()
		}
		return services{http: i}, i, nil
	}, func(code int) { exited.Store(int32(code)) })
	return int(exited.Load()), err
}

func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		i := &idle{shutdown: func(context.Context) error { return nil }}
		if code, err := runIdle(t, i); err != nil || code != -1 || !i.closed || time.Since(begin) != 0 {
			t.Errorf("a quick shutdown: %v, exit %d, closed %t after %v", err, code, i.closed, time.Since(begin))
		}

		begin = time.Now()
		i = &idle{shutdown: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
		if code, err := runIdle(t, i); err != nil || code != -1 || !i.closed || time.Since(begin) != drainWithin {
			t.Errorf("requests that do not end: %v, exit %d, closed %t after %v", err, code, i.closed, time.Since(begin))
		}

		begin = time.Now()
		i = &idle{shutdown: func(context.Context) error { time.Sleep(time.Minute); return nil }}
		if code, _ := runIdle(t, i); code != exitError || time.Since(begin) < exitWithin {
			t.Errorf("a shutdown that hangs: exit %d after %v", code, time.Since(begin))
		}

		i = &idle{serve: errors.New("no more files")}
		if _, err := runIdle(t, i); err == nil || !strings.Contains(err.Error(), "no more files") || !i.closed {
			t.Errorf("a listener that breaks: %v, closed %t", err, i.closed)
		}
	})
}

// TestSecondSignal stops a server whose drain is held up by a request that never comes to its end.
func TestSecondSignal(t *testing.T) {
	p := start(t, "serve", "--data-dir", t.TempDir(), "--http", "127.0.0.1:0", "--grpc", "", "--memory-limit", "256MiB")
	url := p.url()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "PUT /collections/c HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
	get(t, http.DefaultClient, url+"/readyz") // by now the connection above has been accepted
	p.cmd.Process.Signal(syscall.SIGTERM)
	for !strings.Contains(p.output(), "shutting down") {
		select {
		case <-p.done:
			t.Fatalf("the server ended:\n%s", p.output())
		case <-time.After(time.Millisecond):
		}
	}
	begin := time.Now()
	p.cmd.Process.Signal(syscall.SIGTERM)
	p.wait(exitWithin)
	if d := time.Since(begin); d > drainWithin/2 {
		t.Errorf("the second signal took %v", d)
	}
}

func TestServeRefuses(t *testing.T) {
	dir := t.TempDir()
	cert, key := writeCertificate(t, dir, "one")
	f := func(want string, args ...string) {
		t.Helper()
		code, _, stderr := invoke(t, nil, append([]string{"serve", "--data-dir", filepath.Join(dir, "data")}, args...)...)
		if code == exitOK || !strings.Contains(stderr, want) {
			t.Errorf("serve %q: exit code %d, output lacks %q: %s", args, code, want, stderr)
		}
	}
	f("can be reached from other machines", "--http", "0.0.0.0:0")
	f(`--cors: "app.example.com" is not an origin`, "--cors", "*, app.example.com")
	f(`--cors: "https://app.example.com/" is not an origin`, "--cors", "https://app.example.com/")
	f(`--cors: "null" is not an origin`, "--cors", "null")
	f("can be reached from other machines", "--http", ":0")
	f("can be reached from other machines", "--http", "[::]:0")
	f("--grpc 0.0.0.0:0 can be reached from other machines", "--grpc", "0.0.0.0:0")
	f("would leave writing open", "--read-only-api-key", "r")
	f("is the same as a key that permits everything", "--api-key", "k", "--read-only-api-key", "k")
	f("is the same as a key that permits everything", "--api-key", "k", "--alt-api-key", "a", "--read-only-api-key", "a")
	f("are the same", "--api-key", "k", "--alt-api-key", "k")
	f("--alt-api-key without --api-key", "--alt-api-key", "k")
	f("--jwt-rbac without --api-key", "--jwt-rbac")
	f("both given", "--api-key", "k", "--api-key-file", key)
	f("no such file", "--api-key-file", filepath.Join(dir, "absent"))
	f("belong together", "--tls-cert", cert)
	f("TLS certificate", "--tls-cert", key, "--tls-key", key)
	f("--memory-limit: 1.0 MiB is too little", "--memory-limit", "1MiB")
	f("--http", "--http", "127.0.0.1")
	f("--grpc", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1")
	if _, err := os.Stat(filepath.Join(dir, "data")); err == nil {
		t.Error("a refused server made its data directory")
	}
}

// writeCertificate writes a self-signed certificate of localhost with the given common name.
func writeCertificate(t *testing.T, dir, name string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"},
		NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

func TestOrigins(t *testing.T) {
	got, err := origins(" https://a.example.com:8443,,http://localhost ,* ")
	if want := []string{"https://a.example.com:8443", "http://localhost", "*"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("origins %q (%v), want %q", got, err, want)
	}
}

func TestCertificateFollowsItsFiles(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := writeCertificate(t, dir, "one")
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		c, err := loadCertificate(certFile, keyFile, slog.New(slog.NewTextHandler(&logged, nil)))
		if err != nil {
			t.Fatal(err)
		}
		f := func(when, want string) {
			t.Helper()
			got, err := c.get(nil)
			if err != nil || got.Leaf.Subject.CommonName != want {
				t.Errorf("%s: %v, %v, want %s", when, got.Leaf.Subject, err, want)
			}
		}
		stamp := 0
		touch := func() { // file systems keep time coarsely
			stamp++
			for _, path := range []string{certFile, keyFile} {
				if err := os.Chtimes(path, time.Time{}, time.Unix(int64(stamp), 0)); err != nil {
					t.Fatal(err)
				}
			}
		}
		f("at first", "one")
		writeCertificate(t, dir, "two")
		touch()
		f("within a second of the last look", "one")
		time.Sleep(certificateCheckEvery)
		f("after that", "two")
		time.Sleep(certificateCheckEvery)
		f("when nothing has changed", "two")
		if n := strings.Count(logged.String(), "\n"); n != 1 {
			t.Errorf("one change was logged %d times:\n%s", n, logged.String())
		}
		if err := os.WriteFile(certFile, []byte("half a certif"), 0o600); err != nil {
			t.Fatal(err)
		}
		touch()
		time.Sleep(certificateCheckEvery)
		f("with a torn file", "two")
		os.Remove(keyFile)
		time.Sleep(certificateCheckEvery)
		f("with a missing file", "two")
		writeCertificate(t, dir, "three")
		touch()
		time.Sleep(certificateCheckEvery)
		f("when all is well again", "three")
	})
}

// TestTLSAndKeys starts a real server with a certificate and keys from files.
func TestTLSAndKeys(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := writeCertificate(t, dir, "one")
	secretFile := filepath.Join(dir, "secret")
	if err := os.WriteFile(secretFile, []byte("full\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, "serve", "--data-dir", filepath.Join(dir, "data"), "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--memory-limit", "256MiB",
		"--tls-cert", certFile, "--tls-key", keyFile, "--api-key-file", secretFile, "--alt-api-key", "spare", "--read-only-api-key", "reader",
		"--jwt-rbac", "--log-level", "debug")
	url := strings.Replace(p.url(), "127.0.0.1", "localhost", 1)
	roots := x509.NewCertPool()
	pemBytes, err := os.ReadFile(certFile)
	if err != nil || !roots.AppendCertsFromPEM(pemBytes) {
		t.Fatal("the certificate cannot be trusted", err)
	}
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	defer web.CloseIdleConnections()
	code, made, stderr := invoke(t, nil, "token", "--api-key-file", secretFile, "--access", "r", "--subject", "someone")
	if code != exitOK {
		t.Fatal(stderr)
	}
	made = strings.TrimSpace(made)
	for _, c := range []struct {
		key  string
		want int
	}{{"", 401}, {"wrong", 401}, {"reader", 200}, {"full", 200}, {"spare", 200}, {made, 200}, {made + "x", 403}} {
		if status, body := get(t, web, url+"/collections", "api-key", c.key); status != c.want {
			t.Errorf("key %q: %d %s, want %d", c.key, status, body, c.want)
		}
	}
	h2 := overHTTP2(&tls.Config{RootCAs: roots})
	defer h2.CloseIdleConnections()
	for key, want := range map[string]string{"": "16", "wrong": "16", "reader": "0", "full": "0", "spare": "0", made: "0", made + "x": "16"} {
		if got := p.list(h2, "https", key); got != want {
			t.Errorf("key %q over gRPC: status %s, want %s", key, got, want)
		}
	}
	h2.CloseIdleConnections()
	web.CloseIdleConnections()
	p.cmd.Process.Signal(syscall.SIGTERM)
	if code := p.wait(exitWithin + time.Second); code != exitOK {
		t.Errorf("exit code %d\n%s", code, p.output())
	}
	for _, secret := range []string{"full", "reader", "spare", made} {
		if strings.Contains(p.output(), secret) {
			t.Errorf("%s is in the log:\n%s", secret, p.output())
		}
	}
	for _, want := range []string{"credential=token subject=someone", "tokens are signed with a short --api-key"} {
		if !strings.Contains(p.output(), want) {
			t.Errorf("the log lacks %q:\n%s", want, p.output())
		}
	}
}
