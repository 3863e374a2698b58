// A model server for pods of a test: it works for each request and answers "OK!".
//
// It stands in for the image hpa-example of Kubernetes' documentation, down to how it ends: at SIGTERM it accepts no
// connection any more and finishes what it has. `--linger` is for one that goes on accepting for a while, as a server
// does that knows of the delay between the end of a pod and the last packet sent to it.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"math"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

var (
	address = flag.String("address", ":80", "where to listen")
	work    = flag.Int("work", 200_000, "square roots for each request: a few for a quick answer; the original is slower")
	linger  = flag.Duration("linger", 0, "how long to go on accepting connections after SIGTERM")
	sink    float64
)

func main() {
	flag.Parse()
	name, _ := os.Hostname()
	server := &http.Server{Addr: *address, Handler: http.HandlerFunc(func(answer http.ResponseWriter, _ *http.Request) {
		x := 0.0001
		for range *work {
			x += math.Sqrt(x)
		}
		sink = x
		answer.Header().Set("x-pod", name)
		fmt.Fprint(answer, "OK!")
	})}
	ending := make(chan os.Signal, 1)
	signal.Notify(ending, syscall.SIGTERM, syscall.SIGINT)
	ended := make(chan struct{})
	go func() {
		<-ending
		time.Sleep(*linger)
		_ = server.Shutdown(context.Background())
		close(ended)
	}()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		log.Fatal(err)
	}
	<-ended
}
