// Command prometheus is Prometheus' own discovery, scraping, storage and query language, from its Go module, with
// files and Kubernetes as places of discovery, and of its HTTP API the queries, the values of labels and the list of targets: Debian's
// program is built without Kubernetes, and upstream's needs modules that are not to be had from every proxy.
//
//	prometheus CONFIG DATA ADDRESS
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery"
	_ "github.com/prometheus/prometheus/discovery/file"
	_ "github.com/prometheus/prometheus/discovery/kubernetes"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/tsdb"
)

func main() {
	if err := serve(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "prometheus:", err)
		os.Exit(1)
	}
}

func serve(args []string) error {
	if len(args) != 3 {
		return errors.New("want CONFIG DATA ADDRESS")
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	reg := prometheus.DefaultRegisterer
	cfg, err := config.LoadFile(args[0], false, log)
	if err != nil {
		return err
	}
	db, err := tsdb.Open(args[1], log, reg, tsdb.DefaultOptions(), nil)
	if err != nil {
		return err
	}
	defer db.Close()
	targets, err := scrape.NewManager(nil, log, nil, db, reg)
	if err != nil {
		return err
	}
	if err := targets.ApplyConfig(cfg); err != nil {
		return err
	}
	found, err := discover(cfg, log, reg)
	if err != nil {
		return err
	}
	go found.Run()
	go targets.Run(found.SyncCh())
	engine := promql.NewEngine(promql.EngineOpts{Logger: log, MaxSamples: 1_000_000, Timeout: 10 * time.Second})
	http.Handle("/api/v1/query", query(engine, db))
	http.Handle("/api/v1/query_range", queryRange(engine, db))
	http.Handle("/api/v1/label/{name}/values", labelValues(db))
	http.HandleFunc("/-/healthy", func(http.ResponseWriter, *http.Request) {})
	http.Handle("/api/v1/targets", active(targets))
	return http.ListenAndServe(args[2], nil)
}

// discover is the places of discovery of all jobs.
func discover(cfg *config.Config, log *slog.Logger, reg prometheus.Registerer) (*discovery.Manager, error) {
	metrics, err := discovery.CreateAndRegisterSDMetrics(reg)
	if err != nil {
		return nil, err
	}
	m := discovery.NewManager(context.Background(), log, reg, metrics, discovery.Name("scrape"))
	jobs, err := cfg.GetScrapeConfigs()
	if err != nil {
		return nil, err
	}
	places := map[string]discovery.Configs{}
	for _, j := range jobs {
		places[j.JobName] = j.ServiceDiscoveryConfigs
	}
	return m, m.ApplyConfig(places)
}

// query answers an instant query as Prometheus' HTTP API does.
func query(engine *promql.Engine, db *tsdb.DB) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		at := time.Now()
		if v := r.FormValue("time"); v != "" {
			var err error
			if at, err = moment(v); err != nil {
				refuse(w, err)
				return
			}
		}
		q, err := engine.NewInstantQuery(r.Context(), db, nil, r.FormValue("query"), at)
		if err != nil {
			refuse(w, err)
			return
		}
		run(w, r, q)
	}
}

// queryRange answers a query over a time, as Prometheus' HTTP API does.
func queryRange(engine *promql.Engine, db *tsdb.DB) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		start, errStart := moment(r.FormValue("start"))
		end, errEnd := moment(r.FormValue("end"))
		step, errStep := strconv.ParseFloat(r.FormValue("step"), 64)
		if err := errors.Join(errStart, errEnd, errStep); err != nil {
			refuse(w, err)
			return
		}
		q, err := engine.NewRangeQuery(r.Context(), db, nil, r.FormValue("query"), start, end, time.Duration(step*float64(time.Second)))
		if err != nil {
			refuse(w, err)
			return
		}
		run(w, r, q)
	}
}

func run(w http.ResponseWriter, r *http.Request, q promql.Query) {
	defer q.Close()
	res := q.Exec(r.Context())
	if res.Err != nil {
		refuse(w, res.Err)
		return
	}
	var result any = res.Value
	switch v := res.Value.(type) { // nothing is a list without elements, and not null
	case promql.Matrix:
		result = append(promql.Matrix{}, v...)
	case promql.Vector:
		result = append(promql.Vector{}, v...)
	}
	answer(w, map[string]any{"status": "success", "data": map[string]any{"resultType": res.Value.Type(), "result": result}})
}

// moment reads seconds since 1970, as Prometheus' own client writes them.
func moment(s string) (time.Time, error) {
	v, err := strconv.ParseFloat(s, 64)
	return time.UnixMilli(int64(v * 1000)), err
}

// labelValues lists the values of a label; with that of __name__ Kiali looks which metrics there are.
func labelValues(db *tsdb.DB) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q, err := db.Querier(math.MinInt64, math.MaxInt64)
		if err != nil {
			refuse(w, err)
			return
		}
		defer q.Close()
		values, _, err := q.LabelValues(r.Context(), r.PathValue("name"), nil)
		if err != nil {
			refuse(w, err)
			return
		}
		answer(w, map[string]any{"status": "success", "data": values})
	}
}

// active lists targets with what became of their last scrape.
func active(targets *scrape.Manager) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		var out []map[string]any
		for job, all := range targets.TargetsActive() {
			for _, t := range all {
				last := ""
				if err := t.LastError(); err != nil {
					last = err.Error()
				}
				out = append(out, map[string]any{"scrapePool": job, "scrapeUrl": t.URL().String(), "health": t.Health(), "lastError": last})
			}
		}
		answer(w, map[string]any{"status": "success", "data": map[string]any{"activeTargets": out}})
	}
}

func refuse(w http.ResponseWriter, err error) {
	answer(w, map[string]any{"status": "error", "errorType": "bad_data", "error": err.Error()})
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}
