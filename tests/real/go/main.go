// Answers one line over HTTP, and needs CA certificates and time zones to do so.
package main

import (
	"crypto/x509"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"
)

func main() {
	zone, err := time.LoadLocation("Europe/Paris")
	if err != nil {
		log.Fatal(err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil || len(pool.Subjects()) == 0 { //nolint:staticcheck // counts what the system gave
		log.Fatal("no CA certificates")
	}
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		noon := time.Date(2024, 7, 1, 12, 0, 0, 0, time.UTC).In(zone)
		fmt.Fprintf(w, "go answers at %s\n", noon.Format("15:04 MST"))
	})
	port := os.Getenv("PORT")
	if port == "" {
		port = "8000"
	}
	log.Fatal(http.ListenAndServe("127.0.0.1:"+port, nil))
}
