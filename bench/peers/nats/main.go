// Command nats measures work queues of NATS JetStream as vectord bench tasks and bench messages measure vectord's: the server is embedded
// in this process, clients reach it over the loopback, a message of 256 bytes is published, fetched and acknowledged.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

var (
	storage   = flag.String("storage", "file", "file, whose every write is synced before it is acknowledged, or memory")
	batch     = flag.Int("batch", 100, "messages published before their acknowledgements are waited for, and fetched at a time; 1 publishes one by one")
	producers = flag.Int("producers", 4, "connections that publish")
	agents    = flag.Int("agents", 4, "connections that fetch and acknowledge")
	underWay  = flag.Int("under-way", 4_000, "messages that are published and not acknowledged by a consumer, at most")
	payload   = flag.Int("payload", 256, "bytes of a message")
	duration  = flag.Duration("duration", 5*time.Second, "of each measurement")
	rounds    = flag.Int("rounds", 3, "times to measure, of which the medians count")
	dataDir   = flag.String("data-dir", "", "directory below which the data is made, and removed")
	ack       = flag.String("ack", "double", "double waits until the server has stored each acknowledgement, single does not")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() (err error) {
	dir, err := os.MkdirTemp(*dataDir, "nats-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: dir, SyncAlways: true, NoSigs: true, NoLog: true})
	if err != nil {
		return err
	}
	go s.Start()
	defer func() {
		s.Shutdown()
		s.WaitForShutdown()
	}()
	if !s.ReadyForConnections(10 * time.Second) {
		return errors.New("the server does not start")
	}
	var peaks, halves []row
	for round := range *rounds {
		peak, err := measure(s.ClientURL(), fmt.Sprintf("peak%d", round), 0)
		if err != nil {
			return err
		}
		half, err := measure(s.ClientURL(), fmt.Sprintf("half%d", round), peak.rate/2)
		if err != nil {
			return err
		}
		peaks, halves = append(peaks, peak), append(halves, half)
	}
	if *storage == "file" {
		*storage += ", synced always"
	}
	fmt.Printf("NATS %s · storage %s · payloads of %d bytes · batches of %d · %d producers, %d agents · %d messages under way at most · acks %s · medians of %d\n\n",
		server.VERSION, *storage, *payload, *batch, *producers, *agents, *underWay, *ack, *rounds)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "door\tload\ttasks/s\tmessages/s\tacknowledged ms p50\tp95\tp99\tleased ms p50\tp95\tp99\t")
	for i, rows := range [][]row{peaks, halves} {
		of := func(f func(row) float64) float64 {
			v := make([]float64, len(rows))
			for i := range rows {
				v[i] = f(rows[i])
			}
			slices.Sort(v)
			return v[len(v)/2]
		}
		rate := of(func(r row) float64 { return r.rate })
		fmt.Fprintf(w, "jetstream (%s)\t%s\t%.0f\t%.0f\t", *storage, []string{"peak", "half"}[i], rate, 3*rate)
		for at := range 6 {
			fmt.Fprintf(w, "%.2f\t", of(func(r row) float64 { return r.latencies[at] }))
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

// row is one measurement: messages that went all the way in a second, and p50, p95 and p99 of milliseconds to the acknowledgement
// of a publication and to a consumer.
type row struct {
	rate      float64
	latencies [6]float64
}

type connection struct {
	nc *nats.Conn
	js jetstream.JetStream
}

func connect(url string) (c connection, err error) {
	if c.nc, err = nats.Connect(url); err != nil {
		return c, err
	}
	c.js, err = jetstream.New(c.nc, jetstream.WithPublishAsyncMaxPending(*underWay))
	return c, err
}

// measure publishes as fast as there is room, or by the clock where there is a rate.
func measure(url, stream string, rate float64) (r row, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), *duration+2*time.Minute)
	defer cancel()
	admin, err := connect(url)
	if err != nil {
		return r, err
	}
	defer admin.nc.Close()
	config := jetstream.StreamConfig{Name: stream, Subjects: []string{stream}, Retention: jetstream.WorkQueuePolicy, Storage: jetstream.FileStorage}
	if *storage == "memory" {
		config.Storage = jetstream.MemoryStorage
	}
	if _, err := admin.js.CreateStream(ctx, config); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, admin.js.DeleteStream(ctx, stream)) }()
	if _, err := admin.js.CreateOrUpdateConsumer(ctx, stream, jetstream.ConsumerConfig{Durable: "agents", AckPolicy: jetstream.AckExplicitPolicy,
		MaxAckPending: *underWay}); err != nil {
		return r, err
	}
	var published, completed atomic.Int64
	var failed atomic.Pointer[error]
	fail := func(err error) { failed.CompareAndSwap(nil, &err) }
	room := make(chan struct{}, *underWay)
	var mu sync.Mutex // guards what follows
	var acknowledged, leased []float64
	millis := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

	begin := time.Now()
	end := begin.Add(*duration)
	var stop atomic.Bool
	var consumers, publishers sync.WaitGroup
	for range *agents {
		c, err := connect(url)
		if err != nil {
			return r, err
		}
		defer c.nc.Close()
		consumer, err := c.js.Consumer(ctx, stream, "agents")
		if err != nil {
			return r, err
		}
		consumers.Go(func() {
			for !stop.Load() && failed.Load() == nil {
				got, err := consumer.Fetch(max(*batch, 1), jetstream.FetchMaxWait(200*time.Millisecond))
				if err != nil {
					fail(err)
					return
				}
				var took []float64
				var acks sync.WaitGroup
				for m := range got.Messages() {
					at, err := strconv.ParseInt(string(m.Data()[:20]), 10, 64)
					if err != nil {
						fail(err)
					}
					took = append(took, millis(time.Since(begin)-time.Duration(at)))
					done := func() {
						var err error
						if *ack == "double" {
							err = m.DoubleAck(ctx)
						} else {
							err = m.Ack()
						}
						if err != nil {
							fail(err)
						}
						completed.Add(1)
						<-room
					}
					if *ack == "double" {
						acks.Go(done) // all of a batch at once
					} else {
						done()
					}
				}
				acks.Wait()
				mu.Lock()
				leased = append(leased, took...)
				mu.Unlock()
			}
		})
	}
	data := func(at time.Time) []byte {
		b := fmt.Appendf(nil, "%020d ", int64(at.Sub(begin)))
		for len(b) < *payload { // 20 digits and a space are there already
			b = append(b, "lorem ipsum dolor sit amet "[len(b)%27])
		}
		return b
	}
	publish := func(c connection, at time.Time) {
		futures := make([]jetstream.PubAckFuture, 0, *batch)
		message := data(at)
		for range max(*batch, 1) {
			room <- struct{}{}
			published.Add(1)
			if *batch <= 1 {
				if _, err := c.js.Publish(ctx, stream, message); err != nil {
					fail(err)
				}
				continue
			}
			f, err := c.js.PublishAsync(stream, message)
			if err != nil {
				fail(err)
				return
			}
			futures = append(futures, f)
		}
		for _, f := range futures {
			select {
			case <-f.Ok():
			case err := <-f.Err():
				fail(err)
				return
			}
		}
		mu.Lock()
		acknowledged = append(acknowledged, millis(time.Since(at)))
		mu.Unlock()
	}
	connections := make([]connection, *producers)
	for i := range connections {
		if connections[i], err = connect(url); err != nil {
			return r, err
		}
		defer connections[i].nc.Close()
	}
	if rate == 0 {
		for _, c := range connections {
			publishers.Go(func() {
				for time.Now().Before(end) && failed.Load() == nil {
					publish(c, time.Now())
				}
			})
		}
	} else {
		every := time.Duration(float64(max(*batch, 1)) / rate * float64(time.Second))
		publishers.Go(func() {
			i := 0
			for at := time.Now(); at.Before(end) && failed.Load() == nil; at = at.Add(every) {
				time.Sleep(time.Until(at))
				c := connections[i%len(connections)]
				i++
				publishers.Go(func() { publish(c, at) })
			}
		})
	}
	time.Sleep(time.Until(end))
	r.rate = float64(completed.Load()) / time.Since(begin).Seconds()
	publishers.Wait()
	for within := time.Now().Add(time.Minute); completed.Load() < published.Load() && failed.Load() == nil && time.Now().Before(within); {
		time.Sleep(time.Millisecond)
	}
	stop.Store(true)
	consumers.Wait()
	if f := failed.Load(); f != nil {
		return r, *f
	}
	if n := published.Load() - completed.Load(); n != 0 {
		return r, fmt.Errorf("%d messages of %d did not come to their end", n, published.Load())
	}
	for i, list := range [][]float64{acknowledged, leased} {
		slices.Sort(list)
		for j, share := range []float64{0.50, 0.95, 0.99} {
			if len(list) > 0 {
				r.latencies[3*i+j] = list[int(share*float64(len(list)-1))]
			}
		}
	}
	runtime.GC() // what this measurement has left is not the next one's
	return r, nil
}
