// An adapter for custom.metrics.k8s.io and external.metrics.k8s.io that serves what a test gives it.
//
// The server is the library that metrics adapters are made of. Its own test adapter listens for values on port 8080 of
// every address, has no way to remove one, and its external metrics are constants; hence this one.
//
// A test gives all values of a namespace at once: PUT /namespaces/NAME at --values-address, with a document as
// `values` has it. An empty document removes them.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"net/http"
	"os"
	"sync"
	"time"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/klog/v2"
	"k8s.io/metrics/pkg/apis/custom_metrics"
	"k8s.io/metrics/pkg/apis/external_metrics"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/cmd"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider/defaults"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider/helpers"
)

// value is one series. Without a time it is measured whenever somebody asks.
type value struct {
	Resource string            `json:"resource"` // of an object: pods, services, ingresses.networking.k8s.io; namespaces
	Name     string            `json:"name"`
	Metric   string            `json:"metric"`
	Labels   map[string]string `json:"labels"`
	Value    resource.Quantity `json:"value"`
	Time     *metav1.Time      `json:"time"`
	Window   *int64            `json:"windowSeconds"`
}

func (v value) time() metav1.Time {
	if v.Time != nil {
		return *v.Time
	}
	return metav1.Now()
}

// values are all series of a namespace.
type values struct {
	Custom   []value `json:"custom"`
	External []value `json:"external"`
}

type source struct {
	defaults.DefaultCustomMetricsProvider
	defaults.DefaultExternalMetricsProvider
	client dynamic.Interface
	mapper apimeta.RESTMapper

	lock       sync.RWMutex
	namespaces map[string]values
}

func (s *source) replace(answer http.ResponseWriter, request *http.Request) {
	var given values
	if err := json.NewDecoder(request.Body).Decode(&given); err != nil {
		http.Error(answer, err.Error(), http.StatusBadRequest)
		return
	}
	s.lock.Lock()
	defer s.lock.Unlock()
	s.namespaces[request.PathValue("namespace")] = given
}

func (s *source) in(namespace string) values {
	s.lock.RLock()
	defer s.lock.RUnlock()
	return s.namespaces[namespace]
}

func (s *source) GetMetricByName(_ context.Context, name types.NamespacedName, info provider.CustomMetricInfo, selector labels.Selector) (*custom_metrics.MetricValue, error) {
	namespace := name.Namespace
	if !info.Namespaced {
		namespace = name.Name // of metrics of a namespace itself
	}
	for _, one := range s.in(namespace).Custom {
		if one.Resource != info.GroupResource.String() || one.Name != name.Name || one.Metric != info.Metric {
			continue
		}
		if !selector.Matches(labels.Set(one.Labels)) {
			continue
		}
		object, err := helpers.ReferenceFor(s.mapper, name, info)
		if err != nil {
			return nil, err
		}
		metric := custom_metrics.MetricIdentifier{Name: one.Metric}
		return &custom_metrics.MetricValue{
			DescribedObject: object, Metric: metric, Timestamp: one.time(), WindowSeconds: one.Window, Value: one.Value,
		}, nil
	}
	return nil, provider.NewMetricNotFoundForError(info.GroupResource, info.Metric, name.Name)
}

func (s *source) GetMetricBySelector(ctx context.Context, namespace string, selector labels.Selector, info provider.CustomMetricInfo, metricSelector labels.Selector) (*custom_metrics.MetricValueList, error) {
	names, err := helpers.ListObjectNames(s.mapper, s.client, namespace, selector, info)
	if err != nil {
		return nil, err
	}
	found := &custom_metrics.MetricValueList{}
	for _, name := range names {
		object := types.NamespacedName{Namespace: namespace, Name: name}
		if one, err := s.GetMetricByName(ctx, object, info, metricSelector); err == nil {
			found.Items = append(found.Items, *one)
		}
	}
	return found, nil
}

func (s *source) GetExternalMetric(_ context.Context, namespace string, selector labels.Selector, info provider.ExternalMetricInfo) (*external_metrics.ExternalMetricValueList, error) {
	found := &external_metrics.ExternalMetricValueList{}
	for _, one := range s.in(namespace).External {
		if one.Metric == info.Metric && selector.Matches(labels.Set(one.Labels)) {
			found.Items = append(found.Items, external_metrics.ExternalMetricValue{
				MetricName: one.Metric, MetricLabels: one.Labels, Timestamp: one.time(), WindowSeconds: one.Window, Value: one.Value,
			})
		}
	}
	return found, nil
}

func must[T any](made T, err error) T {
	if err != nil {
		klog.Fatal(err)
	}
	return made
}

func main() {
	adapter := &cmd.AdapterBase{Name: "adapter", DiscoveryInterval: time.Minute}
	address := adapter.Flags().String("values-address", "", "where a test gives values")
	adapter.Flags().AddGoFlagSet(flag.CommandLine)
	if err := adapter.Flags().Parse(os.Args); err != nil {
		klog.Fatal(err)
	}
	metrics := &source{
		client:     must(adapter.DynamicClient()),
		mapper:     must(adapter.RESTMapper()),
		namespaces: map[string]values{},
	}
	adapter.WithCustomMetrics(metrics)
	adapter.WithExternalMetrics(metrics)
	http.HandleFunc("PUT /namespaces/{namespace}", metrics.replace)
	go func() { klog.Fatal(http.ListenAndServe(*address, nil)) }()
	if err := adapter.Run(context.Background()); err != nil {
		klog.Fatal(err)
	}
}
