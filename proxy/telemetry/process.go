package telemetry

import (
	"bytes"
	"math"
	"os"
	"runtime"
	"runtime/metrics"
	"strconv"
	"syscall"
	"time"
)

// RegisterProcess adds process_* and the basics of go_* under the names that
// Prometheus' own client uses, and envoy_server_live and _uptime.
// draining tells whether the proxy takes its leave.
func RegisterProcess(r *Registry, start time.Time, draining func() bool) {
	r.CounterFunc("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", cpuSeconds)
	r.GaugeFunc("process_resident_memory_bytes", "Resident memory size in bytes.", residentBytes)
	r.GaugeFunc("process_open_fds", "Number of open file descriptors.", openFDs)
	r.GaugeFunc("process_start_time_seconds", "Start time of the process since unix epoch in seconds.", func() float64 {
		return float64(start.UnixMilli()) / 1000
	})
	r.GaugeFunc("go_goroutines", "Number of goroutines that currently exist.", func() float64 { return float64(runtime.NumGoroutine()) })
	r.GaugeFunc("go_gomaxprocs", "Number of threads that run Go code at once.", func() float64 { return float64(runtime.GOMAXPROCS(0)) })
	r.GaugeFunc("go_info", "Information about the Go environment.", func() float64 { return 1 }, Label{"version", runtime.Version()})
	r.GaugeFunc("go_memstats_heap_alloc_bytes", "Heap bytes allocated and still in use.", sample("/memory/classes/heap/objects:bytes"))
	r.GaugeFunc("go_memstats_sys_bytes", "Bytes obtained from the system.", sample("/memory/classes/total:bytes"))
	r.CounterFunc("go_memstats_alloc_bytes_total", "Bytes allocated, also if freed.", sample("/gc/heap/allocs:bytes"))
	r.CounterFunc("go_gc_cycles_total", "Completed garbage collections.", sample("/gc/cycles/total:gc-cycles"))
	r.GaugeFunc("envoy_server_live", "1 if the server is not draining.", func() float64 {
		if draining() {
			return 0
		}
		return 1
	})
	r.GaugeFunc("envoy_server_uptime", "Seconds since the start.", func() float64 { return math.Trunc(time.Since(start).Seconds()) })
}

// sample reads one metric of the runtime.
func sample(name string) func() float64 {
	return func() float64 {
		s := []metrics.Sample{{Name: name}}
		metrics.Read(s)
		if s[0].Value.Kind() != metrics.KindUint64 {
			return 0
		}
		return float64(s[0].Value.Uint64())
	}
}

func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// residentBytes is the second field of /proc/self/statm, in pages.
func residentBytes() float64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	f := bytes.Fields(b)
	if len(f) < 2 {
		return 0
	}
	n, err := strconv.ParseUint(string(f[1]), 10, 64)
	if err != nil {
		return 0
	}
	return float64(n) * float64(os.Getpagesize())
}

func openFDs() float64 {
	d, err := os.Open("/proc/self/fd")
	if err != nil {
		return 0
	}
	defer func() { _ = d.Close() }()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return 0
	}
	return float64(len(names) - 1) // without the one just opened
}
