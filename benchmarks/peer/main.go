// The other side of benchmarks/joins.py: an xDS server made of go-control-plane's linear caches, and the Envoys that
// join one or the other.
//
//	peer serve FOLDER                      serves what the files of FOLDER say; its port goes to the file `port` there
//	peer join ADDRESS FOLDER TOKEN COUNT   so many streams join at once, and once more; prints the seconds of both
//
// A file of FOLDER is a DeltaDiscoveryResponse with all the resources of one type.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	_ "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// The order in which an Envoy asks, each type once the one before is there.
var order = []string{resource.ClusterType, resource.EndpointType, resource.ListenerType, resource.RouteType}

var wildcards = map[string]bool{resource.ClusterType: true, resource.ListenerType: true}

func main() {
	log.SetFlags(0)
	switch arguments := os.Args[1:]; {
	case len(arguments) == 2 && arguments[0] == "serve":
		serve(arguments[1])
	case len(arguments) == 5 && arguments[0] == "join":
		count, err := strconv.Atoi(arguments[4])
		check(err)
		join(arguments[1], read(arguments[2]), arguments[3], count)
	default:
		log.Fatal("usage: peer serve FOLDER | peer join ADDRESS FOLDER TOKEN COUNT")
	}
}

func read(folder string) map[string]*discovery.DeltaDiscoveryResponse {
	files, err := filepath.Glob(filepath.Join(folder, "*.pb"))
	check(err)
	found := map[string]*discovery.DeltaDiscoveryResponse{}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		check(err)
		response := &discovery.DeltaDiscoveryResponse{}
		check(proto.Unmarshal(raw, response))
		found[response.TypeUrl] = response
	}
	return found
}

func serve(folder string) {
	caches := map[string]cache.Cache{}
	for typeURL, response := range read(folder) {
		resources := map[string]types.Resource{}
		for _, one := range response.Resources {
			message, err := one.Resource.UnmarshalNew()
			check(err)
			resources[one.Name] = message
		}
		caches[typeURL] = cache.NewLinearCache(typeURL, cache.WithInitialResources(resources))
	}
	mux := &cache.MuxCache{
		Classify:      func(request *cache.Request) string { return request.GetTypeUrl() },
		ClassifyDelta: func(request *cache.DeltaRequest) string { return request.GetTypeUrl() },
		Caches:        caches,
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	serving := grpc.NewServer()
	discovery.RegisterAggregatedDiscoveryServiceServer(serving, server.NewServer(context.Background(), mux, nil))
	port := strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
	check(os.WriteFile(filepath.Join(folder, "port"), []byte(port), 0o600))
	fmt.Println("ready")
	check(serving.Serve(listener))
}

func join(address string, content map[string]*discovery.DeltaDiscoveryResponse, token string, count int) {
	envoys := make([]*envoy, count)
	for number := range envoys {
		envoys[number] = newEnvoy(fmt.Sprintf("envoy-%d", number), token, content)
	}
	first := atOnce(envoys, address, (*envoy).joins)
	for _, one := range envoys {
		one.disconnect()
	}
	time.Sleep(time.Second)
	again := atOnce(envoys, address, (*envoy).joinsAgain)
	fmt.Printf("%f %f\n", first.Seconds(), again.Seconds())
}

// Every Envoy connects now; returns how long it took until all of them had everything.
func atOnce(envoys []*envoy, address string, joins func(*envoy)) time.Duration {
	var done sync.WaitGroup
	begin := time.Now()
	for _, one := range envoys {
		done.Go(func() {
			one.connect(address)
			joins(one)
		})
	}
	done.Wait()
	return time.Since(begin)
}

type envoy struct {
	node       *core.Node
	names      map[string][]string
	versions   map[string]map[string]string
	connection *grpc.ClientConn
	stream     discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
}

func newEnvoy(id string, token string, content map[string]*discovery.DeltaDiscoveryResponse) *envoy {
	metadata, err := structpb.NewStruct(map[string]any{"beamlit_token": token})
	check(err)
	node := &core.Node{Id: id, UserAgentName: "envoy", Metadata: metadata}
	for number := range 500 { // a real node has 61 KB of them
		node.Extensions = append(node.Extensions, &core.Extension{
			Name: fmt.Sprintf("envoy.filters.http.extension-%d", number), Category: "envoy.filters.http",
			TypeUrls: []string{"envoy.extensions.filters.http.extension.v3.Extension"},
		})
	}
	this := &envoy{node: node, names: map[string][]string{}, versions: map[string]map[string]string{}}
	for _, typeURL := range order {
		for _, one := range content[typeURL].GetResources() {
			this.names[typeURL] = append(this.names[typeURL], one.Name)
		}
		this.versions[typeURL] = map[string]string{}
	}
	return this
}

func (this *envoy) connect(address string) {
	var err error
	this.connection, err = grpc.NewClient("passthrough:"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30)))
	check(err)
	client := discovery.NewAggregatedDiscoveryServiceClient(this.connection)
	this.stream, err = client.DeltaAggregatedResources(context.Background(), grpc.WaitForReady(true))
	check(err)
}

func (this *envoy) disconnect() { check(this.connection.Close()) }

// Asks for each type once it has all of the one before.
func (this *envoy) joins() {
	for index, typeURL := range order {
		this.asks(typeURL, index == 0, nil)
		this.receives(typeURL)
	}
}

// Says of each type what it has, which is all but one resource, and is done when it has that one.
func (this *envoy) joinsAgain() {
	for index, typeURL := range order {
		lacks := this.names[typeURL][0]
		delete(this.versions[typeURL], lacks)
		this.asks(typeURL, index == 0, this.versions[typeURL])
	}
	this.receives(order...)
}

func (this *envoy) asks(typeURL string, introduced bool, has map[string]string) {
	request := &discovery.DeltaDiscoveryRequest{
		TypeUrl: typeURL, ResourceNamesSubscribe: this.names[typeURL], InitialResourceVersions: has,
	}
	if wildcards[typeURL] {
		request.ResourceNamesSubscribe = []string{"*"}
	}
	if introduced {
		request.Node = this.node
	}
	check(this.stream.Send(request))
}

// Acknowledges whatever comes, until all is there of these types.
func (this *envoy) receives(wanted ...string) {
	for _, typeURL := range wanted {
		for len(this.versions[typeURL]) < len(this.names[typeURL]) {
			response, err := this.stream.Recv()
			check(err)
			for _, one := range response.Resources {
				this.versions[response.TypeUrl][one.Name] = one.Version
			}
			check(this.stream.Send(&discovery.DeltaDiscoveryRequest{
				TypeUrl: response.TypeUrl, ResponseNonce: response.Nonce,
			}))
		}
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
