// A client for pods of a test: a new connection for each request, at a steady rate, and what became of each.
//
//	load --rate 200 http://php-apache
//
// It ends after --requests, at SIGTERM, or when its standard input ends: who started it through `kubectl exec` lets go.
// Then it prints one JSON document, see `report`. Before the first request it says "ready" on standard error.
// Without a URL it waits for SIGTERM: so the same image is the pod in which it is started.
//
// A request fails if it gets no answer within --timeout or one of another status than 200; nothing is sent twice. Names
// are resolved once a second, so that a name server is not what is measured.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

var (
	rate     = flag.Float64("rate", 100, "requests a second")
	requests = flag.Int("requests", 1_000_000, "end after so many")
	timeout  = flag.Duration("timeout", time.Minute, "of one request, connecting included; a busy machine is no failure")
	host     = flag.String("host", "", "the Host header, if not that of the URL")
)

// failure is one request that failed.
type failure struct {
	At    string `json:"at"`
	Error string `json:"error"`
}

// second counts the requests that were sent in one second of the load.
type second struct {
	Local  int `json:"local"`
	Remote int `json:"remote"`
	Direct int `json:"direct"` // answered by a pod that no gateway stood before
	Failed int `json:"failed"`
}

// report is what became of all requests. Times are in milliseconds.
type report struct {
	Requests int       `json:"requests"`
	Failed   int       `json:"failed"`
	Local    int       `json:"local"`
	Remote   int       `json:"remote"`
	Direct   int       `json:"direct"`
	P50      float64   `json:"p50"`
	P99      float64   `json:"p99"`
	Longest  float64   `json:"longest"`
	Started  string    `json:"started"`
	Seconds  []second  `json:"seconds"`
	Failures []failure `json:"failures"` // the first hundred
}

// addresses remembers for a second what a name resolves to. An old answer is better than none.
type addresses struct {
	sync.Mutex
	host  string
	found []string
	asked time.Time
}

func (a *addresses) one(ctx context.Context) (string, error) {
	a.Lock()
	defer a.Unlock()
	if time.Since(a.asked) > time.Second {
		found, err := net.DefaultResolver.LookupHost(ctx, a.host)
		if err == nil {
			a.found, a.asked = found, time.Now()
		} else if a.found == nil {
			return "", err
		}
	}
	return a.found[0], nil
}

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if flag.NArg() == 0 {
		<-ctx.Done()
		return
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	target, err := url.Parse(flag.Arg(0))
	if err != nil {
		log.Fatal(err)
	}
	done := send(ctx, target)
	_ = json.NewEncoder(os.Stdout).Encode(done)
}

func send(ctx context.Context, target *url.URL) report {
	names := &addresses{host: target.Hostname()}
	client := &http.Client{
		Timeout: *timeout,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, network, where string) (net.Conn, error) {
				_, port, err := net.SplitHostPort(where)
				if err != nil {
					return nil, err
				}
				address, err := names.one(ctx)
				if err != nil {
					return nil, err
				}
				return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(address, port))
			},
		},
	}
	var (
		lock    sync.Mutex
		all     report
		took    []float64
		flights sync.WaitGroup
		waiting atomic.Int64
	)
	fmt.Fprintln(os.Stderr, "ready")
	start := time.Now()
	all.Started = start.UTC().Format(time.RFC3339Nano)
	for number := 0; number < *requests && ctx.Err() == nil; number++ {
		due := start.Add(time.Duration(float64(number) / *rate * float64(time.Second)))
		select {
		case <-ctx.Done():
			continue
		case <-time.After(time.Until(due)):
		}
		flights.Add(1)
		waiting.Add(1)
		go func() {
			defer flights.Done()
			sent := time.Now()
			route, err := exchange(client, target)
			spent := time.Since(sent)
			waiting.Add(-1)
			lock.Lock()
			defer lock.Unlock()
			all.Requests++
			at := int(sent.Sub(start).Seconds())
			for len(all.Seconds) <= at {
				all.Seconds = append(all.Seconds, second{})
			}
			if err != nil {
				all.Failed++
				all.Seconds[at].Failed++
				if len(all.Failures) < 100 {
					text := strings.ReplaceAll(err.Error(), target.String(), "URL")
					all.Failures = append(all.Failures, failure{sent.UTC().Format(time.RFC3339Nano), text})
				}
				return
			}
			took = append(took, float64(spent.Microseconds())/1000)
			switch route {
			case "local":
				all.Local++
				all.Seconds[at].Local++
			case "remote":
				all.Remote++
				all.Seconds[at].Remote++
			default:
				all.Direct++
				all.Seconds[at].Direct++
			}
		}()
		// A target that answers nothing must not fill the memory of the pod.
		for waiting.Load() > 2000 && ctx.Err() == nil {
			time.Sleep(10 * time.Millisecond)
		}
	}
	flights.Wait()
	sort.Float64s(took)
	if n := len(took); n > 0 {
		all.P50, all.P99, all.Longest = took[n/2], took[min(n-1, n*99/100)], took[n-1]
	}
	return all
}

// exchange sends one request and returns by which way it was answered, as the gateway says.
func exchange(client *http.Client, target *url.URL) (string, error) {
	request, err := http.NewRequest(http.MethodGet, target.String(), nil)
	if err != nil {
		return "", err
	}
	request.Host = *host
	answer, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return "", err
	}
	if answer.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %d: %.200s", answer.StatusCode, body)
	}
	return answer.Header.Get("x-beamlit-route"), nil
}
