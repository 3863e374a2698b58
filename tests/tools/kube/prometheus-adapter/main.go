// The external metrics of prometheus-adapter: its rules, the queries it makes of them, and how it reads the answers.
//
// All of that is its own, as its library brings it. Its program was last released for Kubernetes 1.30 and does not build
// with the libraries of a newer one; hence this one, whose options have the names and the meaning that they have there.
package main

import (
	"context"
	"flag"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/prometheus/common/model"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/klog/v2"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/cmd"
	prometheus "sigs.k8s.io/prometheus-adapter/pkg/client"
	"sigs.k8s.io/prometheus-adapter/pkg/config"
	external "sigs.k8s.io/prometheus-adapter/pkg/external-provider"
	"sigs.k8s.io/prometheus-adapter/pkg/naming"
)

func must[T any](made T, err error) T {
	if err != nil {
		klog.Fatal(err)
	}
	return made
}

// unhurried asks without the deadline of who asked. The library makes a negative timeout of it, which the libraries that
// it was released with wrote as none at all. Those of today write it out, and Prometheus refuses it.
type unhurried struct{ prometheus.Client }

func (client unhurried) Query(
	ctx context.Context, at model.Time, query prometheus.Selector,
) (prometheus.QueryResult, error) {
	return client.Client.Query(context.WithoutCancel(ctx), at, query)
}

func main() {
	adapter := &cmd.AdapterBase{Name: "prometheus-adapter"}
	address := adapter.Flags().String("prometheus-url", "", "where Prometheus answers")
	file := adapter.Flags().String("config", "", "the file with the rules")
	relist := adapter.Flags().Duration("metrics-relist-interval", 10*time.Minute, "between two looks for which series there are")
	adapter.Flags().AddGoFlagSet(flag.CommandLine)
	if err := adapter.Flags().Parse(os.Args); err != nil {
		klog.Fatal(err)
	}
	rules := must(config.FromFile(*file)).ExternalRules
	namers := must(naming.NamersFromConfig(rules, must(adapter.RESTMapper())))
	asked := prometheus.NewClient(http.DefaultClient, must(url.Parse(*address)), nil, http.MethodGet)
	metrics, looking := external.NewExternalPrometheusProvider(unhurried{asked}, namers, *relist, *relist)
	looking.RunUntil(wait.NeverStop)
	adapter.WithExternalMetrics(metrics)
	if err := adapter.Run(context.Background()); err != nil {
		klog.Fatal(err)
	}
}
