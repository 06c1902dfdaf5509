package protocol

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c"
	"golang.org/x/sys/unix"
)

// Attackers run in a process of their own, so that their CPU time is known, and at a far lower priority than the
// proxy, the good clients and the application, so that what good traffic loses it loses to what the proxy does for the
// attack and not to processors that are taken by attackers or by whatever else runs on the machine.

// attackerEnv holds an [attackOrder] and makes the test program an attacker.
const attackerEnv = "WEFT_TEST_ATTACKER"

// attackOrder says what an attacker does.
type attackOrder struct {
	Name            string
	Plain, H2C, TLS int // ports
	For             time.Duration
	// Victim makes it the application that is attacked; it says its port and ends with its standard input.
	Victim bool
	// Spin, if Name is "", burns this share of a processor instead: load that costs the machine as
	// much as an attack, and the proxy nothing.
	Spin float64
}

// attackReport is what an attacker has done.
type attackReport struct {
	Ends  int    // attacks, each on a connection of its own or more
	Wrong string // an end that was not as it should be
	cpu   time.Duration
}

const endsWithin = 15 * time.Second // of each attack, from its begin to the proxy's end of it

func allAttacks() []attack { return append(attacksH1(), attacksH2()...) }

// attackerMain is the attacker's program.
func attackerMain(order string) int {
	var o attackOrder
	if err := json.Unmarshal([]byte(order), &o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if err := schedule(os.Getpid(), 0); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if o.Victim {
		return victimMain()
	}
	fmt.Println("go")
	var rep attackReport
	if o.Name == "" {
		spin(o.Spin, o.For)
	}
	for _, a := range allAttacks() {
		if a.name == o.Name {
			rep = a.attack(&rig{plain: o.Plain, h2c: o.H2C, tls: o.TLS}, o.For)
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(rep); err != nil {
		return 2
	}
	return 0
}

func victimMain() int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	srv := &http.Server{Handler: h2c.NewHandler(http.HandlerFunc(victim), &http2.Server{}), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = srv.Serve(l) }()
	fmt.Println(l.Addr().(*net.TCPAddr).Port)
	_, _ = io.Copy(io.Discard, os.Stdin)
	_ = srv.Close()
	return 0
}

// startVictim returns the port of an application in a process of its own.
func startVictim(t testing.TB) int {
	t.Helper()
	order, err := json.Marshal(attackOrder{Victim: true})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), attackerEnv+"="+string(order))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the application that was attacked: %v", err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// schedule gives all threads of a process, and those that they start, a real-time priority (SCHED_RR); 0: the ordinary
// scheduler. Nice values would do less: with autogroups they count within a session only.
func schedule(pid, priority int) error {
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL}
	if priority > 0 {
		attr.Policy, attr.Priority = unix.SCHED_RR, uint32(priority)
	}
	for range 2 { // a thread may begin meanwhile
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			return err
		}
		for _, d := range tasks {
			if tid, err := strconv.Atoi(d.Name()); err == nil {
				if err := unix.SchedSetAttr(tid, &attr, 0); err != nil && !errors.Is(err, unix.ESRCH) {
					return fmt.Errorf("priority %d of thread %d: %w", priority, tid, err)
				}
			}
		}
	}
	return nil
}

// spin takes a share of a processor's time, 10 ms at a time.
func spin(share float64, d time.Duration) {
	var wg sync.WaitGroup
	for share > 0 {
		part := min(share, 1)
		share -= part
		wg.Go(func() {
			for end := time.Now().Add(d); time.Now().Before(end); {
				for busy := time.Now().Add(time.Duration(part * float64(10*time.Millisecond))); time.Now().Before(busy); {
				}
				time.Sleep(time.Duration((1 - part) * float64(10*time.Millisecond)))
			}
		})
	}
	wg.Wait()
}

// attack is begun again for d by all attackers, and watched to its ends.
func (a *attack) attack(r *rig, d time.Duration) attackReport {
	until := time.Now().Add(d)
	var wg sync.WaitGroup
	var ends atomic.Int64
	var once sync.Once
	var wrong string
	for range max(a.conns, 1) {
		wg.Go(func() {
			for first := true; first || time.Now().Before(until); first = false {
				began := time.Now()
				end, err := a.run(r)
				took := time.Since(began)
				if err != nil || !a.ended(end, took) {
					once.Do(func() {
						wrong = fmt.Sprintf("it ended with %q after %v (%v), want %s within %v", end, took, err, a.want, endsWithin)
					})
				}
				ends.Add(1)
				time.Sleep(a.pause)
			}
		})
	}
	wg.Wait()
	return attackReport{Ends: int(ends.Load()), Wrong: wrong}
}

// attacker is a running one.
type attacker struct {
	t   testing.TB
	cmd *exec.Cmd
	out *bufio.Reader
	err strings.Builder
}

// startAttacker returns when the attacker has begun.
func startAttacker(t testing.TB, o attackOrder) *attacker {
	t.Helper()
	order, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	a := &attacker{t: t, cmd: exec.Command(os.Args[0], "-test.run=^$")}
	a.cmd.Env = append(os.Environ(), attackerEnv+"="+string(order))
	a.cmd.Stderr = &a.err
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := a.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	a.out = bufio.NewReader(out)
	if line, err := a.out.ReadString('\n'); err != nil || line != "go\n" {
		t.Fatalf("attacker says %q, %v", line, err)
	}
	return a
}

// wait returns what it has done, and the CPU time that this took.
func (a *attacker) wait() attackReport {
	a.t.Helper()
	var rep attackReport
	text, _ := io.ReadAll(a.out)
	if err := a.cmd.Wait(); err != nil {
		a.t.Fatalf("attacker: %v\n%s", err, &a.err)
	}
	if err := json.Unmarshal(text, &rep); err != nil {
		a.t.Fatalf("attacker says %q: %v", text, err)
	}
	rep.cpu = a.cmd.ProcessState.UserTime() + a.cmd.ProcessState.SystemTime()
	return rep
}
