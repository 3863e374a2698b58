// A remote backend for pods of a test: TLS, a token endpoint (OAuth2, client credentials), and the header Cf-Ray that
// the platform's answers carry.
//
// A POST to a path that ends with /oauth/token gives a token to the client of --client-id and --client-secret. Everything
// else wants that token and answers "remote" with what was asked for, so that a test sees the path and the host that
// arrived.
package main

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net/http"
	"strings"
)

var (
	address      = flag.String("address", ":443", "where to listen")
	certificate  = flag.String("certificate", "/tls/tls.crt", "PEM file")
	key          = flag.String("key", "/tls/tls.key", "PEM file")
	clientID     = flag.String("client-id", "", "who may have a token")
	clientSecret = flag.String("client-secret", "", "and what that one has to know")
)

func random() string {
	bytes := make([]byte, 16)
	if _, err := rand.Read(bytes); err != nil {
		log.Fatal(err)
	}
	return hex.EncodeToString(bytes)
}

func same(one, other string) bool {
	return subtle.ConstantTimeCompare([]byte(one), []byte(other)) == 1
}

func main() {
	flag.Parse()
	token := random()
	http.HandleFunc("/", func(answer http.ResponseWriter, request *http.Request) {
		if request.Method == http.MethodPost && strings.HasSuffix(request.URL.Path, "/oauth/token") {
			give(token, answer, request)
			return
		}
		if !same(strings.TrimPrefix(request.Header.Get("authorization"), "Bearer "), token) {
			http.Error(answer, "no token, or not the one that was given", http.StatusUnauthorized)
			return
		}
		answer.Header().Set("cf-ray", random()[:16]+"-NODE")
		fmt.Fprintf(answer, "remote %s %s%s\n", request.Method, request.Host, request.URL.Path)
	})
	log.Fatal(http.ListenAndServeTLS(*address, *certificate, *key, nil))
}

// give answers at the token endpoint, as RFC 6749 has it in sections 4.4 and 5.
func give(token string, answer http.ResponseWriter, request *http.Request) {
	id, secret, basic := request.BasicAuth()
	if !basic {
		id, secret = request.PostFormValue("client_id"), request.PostFormValue("client_secret")
	}
	answer.Header().Set("content-type", "application/json")
	if !same(id, *clientID) || !same(secret, *clientSecret) {
		answer.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(answer, `{"error":"invalid_client"}`)
		return
	}
	given := map[string]any{"access_token": token, "token_type": "Bearer", "expires_in": 3600}
	_ = json.NewEncoder(answer).Encode(given)
}
